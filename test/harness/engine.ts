/**
 * A repository to back up into, for tests of the engine: made with a generated kit in any store, small packs
 * and chunks, one cache folder; folders backed up from code, and read back into a map by path. What must hold
 * of the store afterwards is verify.ts.
 */
import { createHash } from 'node:crypto'
import { cpSync, lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { backup, type BackupOptions, type BackupSummary } from '../../src/backup/backup.ts'
import { type Clock, systemClock } from '../../src/base/clock.ts'
import { DEFAULT_CHUNKING, type ConfigChunking } from '../../src/format/config.ts'
import { openHostFolder, type HostFolder } from '../../src/repo/host-folder.ts'
import { createKeys, openRepository, type Access } from '../../src/repo/keys.ts'
import { type Kit, newKit } from '../../src/repo/kit.ts'
import { listSnapshots, type StoredSnapshot } from '../../src/repo/snapshots.ts'
import { closeSnapshot, openSnapshot, readFile, walkTree } from '../../src/repo/tree-reader.ts'
import { readXattrs } from '../../src/sources/files/stat.ts'
import { walkFiles } from '../../src/sources/files/walk.ts'
import type { Source, SourceView } from '../../src/sources/source.ts'
import { memoryStore, type MemoryDisk } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'

/**
 * Chunks of about 4 KiB and packs of 128 KiB: a backup of a megabyte has everything that one of a terabyte
 * has.
 */
export const SMALL_CHUNKING: ConfigChunking = {
  ...DEFAULT_CHUNKING,
  cdc: { minBytes: 2048, maskBits: 11, maxBytes: 16_384 },
  pagesRunBytes: 16_384,
  packBytesMax: 131_072,
}

export interface TestRepository {
  /** A scratch folder, for the folders that are backed up. */
  readonly folder: string
  /** What the memory store holds; empty with another store. */
  readonly disk: MemoryDisk
  readonly kit: Kit
  readonly access: Access
  readonly host: HostFolder
}

export interface RepositoryOptions {
  readonly store?: BlobStore
  readonly clock?: Clock
  readonly chunking?: ConfigChunking
}

/** An empty repository. End with dropRepository(). */
export async function makeRepository(options: RepositoryOptions = {}): Promise<TestRepository> {
  const { clock = systemClock, chunking = SMALL_CHUNKING } = options
  const folder = mkdtempSync(join(tmpdir(), 'backstock-engine-'))
  const disk: MemoryDisk = new Map()
  const store = options.store ?? memoryStore({ disk, clock })
  const kit = newKit()
  await createKeys({ store, kit, shop: 'acme', writer: 'host', clock, chunking })
  const access = await openRepository(store, kit)
  return { folder, disk, kit, access, host: openHostFolder(join(folder, 'cache'), kit.repository) }
}

export function dropRepository(repository: TestRepository): void {
  rmSync(repository.folder, { recursive: true, force: true })
}

/** The same repository through another store, as a new process would open it. */
export function through(repository: TestRepository, store: BlobStore): TestRepository {
  return { ...repository, access: { ...repository.access, store, opened: new Map() } }
}

/**
 * A copy of the repository with its cache, on a disk of its own: what happens to it leaves the first one
 * alone.
 */
export function fork(repository: TestRepository, name: string): TestRepository {
  const disk: MemoryDisk = new Map(repository.disk)
  const cache = join(repository.folder, name)
  cpSync(join(repository.host.path, '..'), cache, { recursive: true })
  return {
    ...through(repository, memoryStore({ disk })),
    disk,
    host: openHostFolder(cache, repository.kit.repository),
  }
}

export function dropFork(forked: TestRepository): void {
  rmSync(join(forked.host.path, '..'), { recursive: true, force: true })
}

/** `inner`, and how many bytes of packs were newly stored through it. */
export function countingStore(inner: BlobStore): { store: BlobStore; packBytes: () => number } {
  let packBytes = 0
  const store: BlobStore = {
    ...inner,
    workerUrl: undefined,
    async put(name, bytes, options) {
      const outcome = await inner.put(name, bytes, options)
      if (outcome === 'created' && /^d\/[^/]+\/(packs|meta)\//.test(name)) packBytes += bytes.length
      return outcome
    },
  }
  return { store, packBytes: () => packBytes }
}

export function forgetCache(repository: TestRepository): void {
  rmSync(repository.host.path, { recursive: true, force: true })
  openHostFolder(join(repository.host.path, '..'), repository.kit.repository)
}

/** A folder as a source named `shop`. */
export function folderSource(path: string, view: Partial<SourceView> & { name?: string } = {}): Source {
  const { name = 'shop', ...rest } = view
  return {
    name,
    kind: 'files',
    increments: true,
    begin: () =>
      Promise.resolve({
        roots: [path],
        excludes: [],
        entries: () => walkFiles({ paths: [path] }),
        pageBytesOf: () => -1,
        ignoreInode: false,
        owners: () => ({ users: {}, groups: {} }),
        logRange: () => undefined,
        rootCounts: () => ({}),
        end: () => Promise.resolve([]),
        ...rest,
      }),
  }
}

/** Backs up in this thread unless told otherwise. */
export async function backUp(
  repository: TestRepository,
  source: Source,
  options: Partial<BackupOptions> = {},
): Promise<BackupSummary> {
  const defaults = {
    kind: 'auto',
    tags: [],
    hostName: 'host',
    workers: 0,
    dryRun: false,
    clock: systemClock,
  } as const
  return await backup(repository.access, repository.host, source, { ...defaults, ...options })
}

/** A clock that runs `ahead` of the system's: files written just now count as long settled. */
export function aheadClock(milliseconds: number): Clock {
  return { now: () => systemClock.now() + milliseconds, elapsed: () => systemClock.elapsed() }
}

/** An entry as it must come back; contents as their SHA-256. */
export type EntryState = Readonly<Record<string, string | number | bigint>>

/** All that lies below `path`, by raw path relative to it and in their order; '' is the folder itself. */
export function folderState(path: string): Map<string, EntryState> {
  const state = new Map<string, EntryState>()
  const add = (relative: string): void => {
    const full = Buffer.from(`${path}${relative}`, 'latin1')
    const stats = lstatSync(full, { bigint: true })
    const type = stats.isFile()
      ? 'file'
      : stats.isDirectory()
        ? 'directory'
        : stats.isSymbolicLink()
          ? 'symlink'
          : 'other'
    const bytes = type === 'file' ? readFileSync(full) : Buffer.alloc(0)
    const xattrs = readXattrs(`${path}${relative}`)
    state.set(relative, {
      type,
      mode: Number(stats.mode) & 0o7777,
      owner: `${stats.uid}:${stats.gid}`,
      mtime: stats.mtimeNs,
      inode: stats.ino,
      size: bytes.length,
      sha256: sha256Hex(bytes),
      target: type === 'symlink' ? readlinkSync(full, { encoding: 'latin1' }) : '',
      xattrs: xattrs.map(({ name, value }) => `${name}=${Buffer.from(value).toString('hex')}`).join(' '),
    })
    if (type !== 'directory') return
    for (const name of readdirSync(full, { encoding: 'latin1' })) add(`${relative}/${name}`)
  }
  add('')
  return byPath(state)
}

/** The same of a snapshot, read through src/repo/tree-reader.ts; only what lies below `path`. */
export async function readBack(
  repository: TestRepository,
  snapshot: StoredSnapshot,
  path: string,
): Promise<Map<string, EntryState>> {
  const state = new Map<string, EntryState>()
  const reader = await openSnapshot(repository.access, repository.host, snapshot)
  try {
    for await (const event of walkTree(reader)) {
      const { entry } = event
      if (event.kind === 'leave' || (event.path !== path && !event.path.startsWith(`${path}/`))) continue
      const content = createHash('sha256')
      if (entry.type === 'file') for await (const piece of readFile(reader, entry)) content.update(piece)
      state.set(event.path.slice(path.length), {
        type: entry.type,
        mode: entry.mode,
        owner: `${entry.uid}:${entry.gid}`,
        mtime: entry.mtime,
        inode: entry.inode,
        size: entry.size,
        sha256: content.digest('hex'),
        target: entry.target,
        xattrs: entry.xattrs
          .map(({ name, value }) => `${name}=${Buffer.from(value).toString('hex')}`)
          .join(' '),
      })
    }
  } finally {
    closeSnapshot(reader)
  }
  return byPath(state)
}

function byPath(state: ReadonlyMap<string, EntryState>): Map<string, EntryState> {
  return new Map([...state].sort(([a], [b]) => (a < b ? -1 : 1)))
}

export async function snapshotsOf(repository: TestRepository): Promise<readonly StoredSnapshot[]> {
  return (await listSnapshots(repository.access.store, repository.access.config)).snapshots
}

export async function snapshotOf(
  repository: TestRepository,
  id: string | undefined,
): Promise<StoredSnapshot> {
  const found = (await snapshotsOf(repository)).find((snapshot) => snapshot.id === id)
  if (found === undefined) throw new Error(`there is no snapshot ${id}`)
  return found
}

export function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Numbers from a seed (mulberry32): 0 ≤ value < 1. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Bytes that do not compress, always the same for a seed. */
export function noise(seed: number, bytes: number): Buffer {
  const random = seeded(seed)
  const out = Buffer.allocUnsafe(bytes)
  let at = 0
  for (; at + 4 <= bytes; at += 4) out.writeUInt32LE(Math.floor(random() * 2 ** 32), at)
  for (; at < bytes; at++) out[at] = Math.floor(random() * 256)
  return out
}

/** The seed of a property test: SEED of the environment, else one by chance; printed by whoever uses it. */
export function testSeed(): number {
  return process.env['SEED'] === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(process.env['SEED'])
}

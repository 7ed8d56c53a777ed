/**
 * A small repository with a history of every kind of snapshot, and the oracle of checks: which files of which
 * snapshots cannot be read, found by reading all of them.
 */
import assert from 'node:assert/strict'
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../src/base/clock.ts'
import { isFailure } from '../../src/base/failure.ts'
import type { ConfigChunking } from '../../src/format/config.ts'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import type { TreeEntry } from '../../src/format/tree.ts'
import type { Finding } from '../../src/recovery/check-findings.ts'
import { listSnapshots, type StoredSnapshot } from '../../src/repo/snapshots.ts'
import {
  closeSnapshot,
  fileExtents,
  openSnapshot,
  readDirectory,
  readFile,
  rootNode,
  type SnapshotReader,
} from '../../src/repo/tree-reader.ts'
import type { Source } from '../../src/sources/source.ts'
import { backUp, folderSource, makeRepository, noise, type TestRepository } from './engine.ts'

const LARGE_BYTES = 16 * 1024 * 1024

export interface SteppingClock extends Clock {
  /** Milliseconds since 1970; every now() moves it on by a second. */
  at: number
}

/** A clock of its own that only goes on when it is asked. */
export function steppingClock(at = Date.parse('2026-03-01T00:00:00Z')): SteppingClock {
  const clock: SteppingClock = {
    at,
    now: () => {
      clock.at += 1000
      return clock.at
    },
    elapsed: () => clock.at,
  }
  return clock
}

export interface TestShop {
  readonly repository: TestRepository
  readonly source: Source
  readonly folder: string
  readonly clock: SteppingClock
}

/** Paths ending in `.db` are database files of 4 KiB pages. */
export function shopSource(folder: string): Source {
  return folderSource(folder, { pageBytesOf: (path) => (path.endsWith('.db') ? 4096 : 0) })
}

export async function makeShop(options: { chunking?: ConfigChunking } = {}): Promise<TestShop> {
  const clock = steppingClock()
  const repository = await makeRepository({ ...options, clock })
  const folder = join(repository.folder, 'shop')
  mkdirSync(join(folder, 'many'), { recursive: true })
  mkdirSync(join(folder, 'deep/er'), { recursive: true })
  mkdirSync(join(folder, 'twin'))
  for (let n = 0; n < 300; n++) writeFileSync(join(folder, `many/file-${n}`), noise(n, 40))
  for (let n = 0; n < 30; n++)
    writeFileSync(join(folder, `deep/er/page-${n}.html`), noise(1000 + n, 700 + n * 90))
  writeFileSync(join(folder, 'deep/photo.jpg'), noise(1, 250_000))
  writeFileSync(join(folder, 'twin/photo.jpg'), noise(1, 250_000))
  writeFileSync(join(folder, 'orders.db'), noise(2, 400_000))
  writeFileSync(join(folder, 'empty'), '')
  writeSparse(join(folder, 'large.bin'), 67 * 1024 * 1024, [0, 66 * 1024 * 1024])
  return { repository, source: shopSource(folder), folder, clock }
}

/** Holes with 20 000 bytes at each place: a file of several extent nodes that takes no time to read. */
function writeSparse(path: string, bytes: number, places: readonly number[]): void {
  const file = openSync(path, 'w')
  ftruncateSync(file, bytes)
  for (const place of places) writeSync(file, noise(place, 20_000), 0, 20_000, place)
  closeSync(file)
}

/** Changes some of everything; `seed` says what. */
export function changeShop(shop: TestShop, seed: number): void {
  const { folder } = shop
  writeFileSync(join(folder, `many/file-${seed % 300}`), noise(9000 + seed, 50))
  writeFileSync(join(folder, `many/new-${seed}`), noise(8000 + seed, 900))
  rmSync(join(folder, `deep/er/page-${seed % 30}.html`), { force: true })
  appendFileSync(join(folder, 'deep/photo.jpg'), noise(7000 + seed, 3000))
  const file = openSync(join(folder, 'orders.db'), 'r+')
  writeSync(file, noise(6000 + seed, 4096), 0, 4096, 4096 * (seed % 90))
  closeSync(file)
  mkdirSync(join(folder, `new-${seed}`))
  writeFileSync(join(folder, `new-${seed}/note`), noise(5000 + seed, 30_000))
}

/** A backup of each kind given, with changes before each; the ids of the snapshots. */
export async function backUpShop(
  shop: TestShop,
  kinds: readonly SnapshotKind[],
  seed = 1,
): Promise<string[]> {
  const ids: string[] = []
  for (const [at, kind] of kinds.entries()) {
    changeShop(shop, seed + at)
    const { snapshot } = await backUp(shop.repository, shop.source, { kind, clock: shop.clock })
    ids.push(snapshot ?? '')
  }
  return ids
}

/** A full with all that can hang on it, then a second full. */
export const ALL_KINDS: readonly SnapshotKind[] = [
  'full',
  'incremental',
  'incremental',
  'differential',
  'incremental',
  'full',
  'incremental',
]

/** `<snapshot> <path>`; a directory of which something is lost ends in `/`. */
export type LostFiles = Set<string>

/** What cannot be read, by reading everything with nothing cached. */
export async function lostFiles(
  repository: TestRepository,
  at: { host: TestRepository['host'] },
): Promise<LostFiles> {
  const lost: LostFiles = new Set()
  const { snapshots } = await listSnapshots(repository.access.store, repository.access.config)
  for (const snapshot of snapshots) {
    const name = (path: string): void => {
      lost.add(`${snapshot.id} ${path}`)
    }
    const reader = await unlessFails(() => openSnapshot(repository.access, at.host, snapshot))
    if (reader === undefined) name('/')
    else {
      await readAll(reader, rootNode(reader), '', name)
      closeSnapshot(reader)
    }
  }
  return lost
}

async function readAll(
  reader: SnapshotReader,
  node: Uint8Array,
  path: string,
  name: (path: string) => void,
): Promise<void> {
  const entries: TreeEntry[] = []
  const whole = await unlessFails(async () => {
    for await (const entry of readDirectory(reader, node)) entries.push(entry)
    return true
  })
  if (whole === undefined) name(`${path}/`)
  for (const entry of entries) {
    if (entry.node !== undefined) await readAll(reader, entry.node, `${path}/${entry.name}`, name)
    else if (entry.type === 'file' && (await readSize(reader, entry)) !== entry.size)
      name(`${path}/${entry.name}`)
  }
}

/** Of large files only what is no hole is read: the zeros of one take longer than all the rest. */
async function readSize(reader: SnapshotReader, entry: TreeEntry): Promise<number | undefined> {
  return await unlessFails(async () => {
    let bytes = 0
    if (entry.size < LARGE_BYTES) for await (const piece of readFile(reader, entry)) bytes += piece.length
    else
      for await (const { offset, extents } of fileExtents(reader, entry)) {
        bytes = offset
        for (const { ref, length } of extents.extents) {
          const range = { offset: bytes, length }
          if (ref > 0) for await (const piece of readFile(reader, entry, range)) assert(piece.length > 0)
          bytes += length
        }
      }
    return bytes
  })
}

async function unlessFails<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work()
  } catch (error) {
    if (isFailure(error)) return undefined
    throw error
  }
}

/** What a report names. */
export function namedFiles(findings: readonly Finding[], snapshots: readonly StoredSnapshot[]): LostFiles {
  const known = new Set(snapshots.map((snapshot) => snapshot.id))
  const named: LostFiles = new Set()
  for (const { files } of findings)
    for (const { snapshot, path, below } of files)
      if (known.has(snapshot)) named.add(`${snapshot} ${path}${below && path !== '/' ? '/' : ''}`)
  return named
}

/** Without what lies in a directory that is listed itself: a reader does not get that far. */
export function outermost(lost: LostFiles): string[] {
  const isInside = (each: string): boolean => {
    const [snapshot = '', path = ''] = each.split(' ')
    if (path === '/') return false
    for (let at = path.lastIndexOf('/', path.length - 2); at >= 0; at = path.lastIndexOf('/', at - 1)) {
      if (lost.has(`${snapshot} ${path.slice(0, at + 1)}`)) return true
      if (at === 0) break
    }
    return false
  }
  return [...lost].filter((each) => !isInside(each)).sort()
}

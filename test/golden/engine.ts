/** Drives the real engine for the golden repository: makes one, changes its keys, backs up, and reads back. */
import { createHash } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import { backup } from '../../src/backup/backup.ts'
import { systemClock } from '../../src/base/clock.ts'
import { openHostFolder } from '../../src/repo/host-folder.ts'
import { rotateEpoch } from '../../src/repo/key-changes.ts'
import { createKeys, openRepository } from '../../src/repo/keys.ts'
import { newKit, type Kit } from '../../src/repo/kit.ts'
import { listSnapshots } from '../../src/repo/snapshots.ts'
import {
  closeSnapshot, contentOf, findEntry, openSnapshot, readDirectory, readFile, walkTree, type SnapshotReader,
} from '../../src/repo/tree-reader.ts'
import { openStore } from '../../src/storage/open.ts'
import { walkFiles } from '../../src/sources/files/walk.ts'
import type { Source } from '../../src/sources/source.ts'
import { changeSourceTree, makeSourceTree, manifestOf, type ManifestEntry } from './source-tree.ts'

export interface Made {
  readonly kit: Kit
  /** In order, each with what the source held. */
  readonly snapshots: readonly { readonly id: string; readonly entries: readonly ManifestEntry[] }[]
}

const KINDS = ['full', 'incremental', 'incremental', 'differential'] as const

/** Backs up all states of the tree in the empty `sourceDir` into the new `repoDir`; a new epoch after the second. */
export async function makeRepository(repoDir: string, sourceDir: string, cacheDir: string): Promise<Made> {
  const store = await openStore(pathToFileURL(repoDir).href, { create: true })
  const kit = newKit()
  const clock = systemClock
  await createKeys({ store, kit, shop: 'golden', writer: 'golden', clock })
  const snapshots: Made['snapshots'][number][] = []
  for (const [step, kind] of KINDS.entries()) {
    if (step === 0) makeSourceTree(sourceDir)
    else changeSourceTree(sourceDir, step)
    const access = await openRepository(store, kit)
    if (step === 2) await rotateEpoch({ store, kit, clock }, access.config.domains[0]?.id ?? '')
    const fresh = step === 2 ? await openRepository(store, kit) : access
    const host = openHostFolder(cacheDir, access.config.repository)
    const options = { kind, tags: ['golden'], hostName: 'golden.example', workers: 2, dryRun: false, clock }
    const summary = await backup(fresh, host, sourceOf(sourceDir), options)
    if (summary.kind !== kind || summary.snapshot === undefined || summary.problems.length > 0)
      throw new Error(`not the backup asked for: ${JSON.stringify({ ...summary, totals: null })}`)
    snapshots.push({ id: summary.snapshot, entries: manifestOf(sourceDir) })
  }
  await store.close()
  return { kit, snapshots }
}

function sourceOf(dir: string): Source {
  return {
    name: 'files', kind: 'files', increments: true,
    begin: () => Promise.resolve({
      roots: [dir], excludes: [], entries: () => walkFiles({ paths: [dir] }), pageBytesOf: () => -1,
      ignoreInode: false, owners: () => ({ users: { 0: 'root' }, groups: { 0: 'root' } }),
      logRange: () => undefined, rootCounts: () => ({}), end: () => Promise.resolve([]),
    }),
  }
}

/** What our own engine reads of a folder in each snapshot of a repository, in the order of their counters. */
export async function readManifests(
  repoDir: string, kit: Kit, cacheDir: string, dir: string,
): Promise<{ id: string; entries: ManifestEntry[] }[]> {
  return eachSnapshot(repoDir, kit, cacheDir, async (reader) => {
    const top = await findEntry(reader, dir)
    const entries = top?.node ? await readEntries(reader, top.node, '', new Map()) : []
    return { id: reader.snapshot.id, entries: entries.sort((a, b) => (a.path < b.path ? -1 : 1)) }
  })
}

/** The kinds of content that occur in any snapshot, sorted. */
export async function contentKinds(repoDir: string, kit: Kit, cacheDir: string, dir: string): Promise<string[]> {
  const found = new Set<string>()
  await eachSnapshot(repoDir, kit, cacheDir, async (reader) => {
    for await (const { path, entry } of walkTree(reader)) {
      if (entry.type !== 'file' || !path.startsWith(`${dir}/`)) continue
      const content = contentOf(entry)
      found.add('map' in content ? `${content.kind}, depth ${content.map.depth}` : content.kind)
    }
  })
  return [...found].sort()
}

async function eachSnapshot<T>(
  repoDir: string, kit: Kit, cacheDir: string, read: (reader: SnapshotReader) => Promise<T>,
): Promise<T[]> {
  const store = await openStore(pathToFileURL(repoDir).href)
  const access = await openRepository(store, kit)
  const host = openHostFolder(cacheDir, kit.repository)
  const { snapshots, bad } = await listSnapshots(store, access.config)
  if (bad.length > 0) throw new Error(`snapshots that cannot be believed: ${bad.map(({ name }) => name).join()}`)
  const found: T[] = []
  for (const snapshot of snapshots) {
    const reader = await openSnapshot(access, host, snapshot)
    try {
      found.push(await read(reader))
    } finally {
      closeSnapshot(reader)
    }
  }
  await store.close()
  return found
}

async function readEntries(
  reader: SnapshotReader, node: Uint8Array, base: string, links: Map<string, string>,
): Promise<ManifestEntry[]> {
  const found: ManifestEntry[] = []
  for await (const entry of readDirectory(reader, node)) {
    const path = `${base}${entry.name}`
    const common = { path, mode: entry.mode.toString(8), mtime: String(entry.mtime) }
    if (entry.node !== undefined) {
      found.push({ ...common, type: 'directory' }, ...(await readEntries(reader, entry.node, `${path}/`, links)))
    } else if (entry.type === 'symlink') {
      found.push({ ...common, type: 'symlink', target: entry.target })
    } else {
      const hash = createHash('sha256')
      for await (const bytes of readFile(reader, entry)) hash.update(bytes)
      const user = entry.xattrs.filter(({ name }) => name.startsWith('user.'))
      const xattrs = Object.fromEntries(user.map(({ name, value }) => [name, Buffer.from(value).toString('hex')]))
      const inode = `${entry.dev} ${entry.inode}`
      const first = entry.links > 1 ? links.get(inode) : undefined
      if (entry.links > 1 && first === undefined) links.set(inode, path)
      found.push({
        ...common, type: 'file', size: entry.size, sha256: hash.digest('hex'),
        ...(first !== undefined && { linkOf: first }), ...(user.length > 0 && { xattrs }),
      })
    }
  }
  return found
}

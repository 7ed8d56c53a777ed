/**
 * Writes the index runs of a pack set as its packs become durable, and the local sorted runs that replace
 * full session tables. A run only ever lists packs that are stored: order is the safety.
 */
import { join } from 'node:path'
import { randomBytes, randomHex } from '../base/random.ts'
import { CHUNK_ID_BYTES, PACK_KINDS } from '../format/pack.ts'
import {
  encodeIndexPacks,
  encodeIndexRun,
  INDEX_ENTRY_BYTES,
  putIndexEntry,
  sortIndexEntries,
} from '../format/index-run.ts'
import { sha256 } from '../format/seal.ts'
import type { LineageRun, LineageSet } from '../format/snapshot.ts'
import type { BlobStore } from '../storage/store.ts'
import { addRunEntries, beginRun, finishRun } from './run-builder.ts'
import { openRun, type SortedRun } from './sorted-run.ts'
import { runName } from './names.ts'
import type { StoredPack, WriterKeys } from './saver.ts'
import { assert, Failure, isFailure } from '../base/failure.ts'

export interface RunWriter {
  readonly store: BlobStore
  readonly keys: WriterKeys
  /** Durable packs that no run lists yet. */
  pending: StoredPack[]
  /** Runs written, adopted ones first. */
  readonly runs: LineageRun[]
  next: number
  packs: number
  bytes: number
}

/** What an interrupted backup left of the same pack set. */
export interface AdoptedRuns {
  readonly runs: readonly LineageRun[]
  readonly next: number
  readonly packs: number
  readonly bytes: number
}

export function newRunWriter(
  store: BlobStore,
  keys: WriterKeys,
  adopted: AdoptedRuns | undefined,
): RunWriter {
  return {
    store,
    keys,
    pending: [],
    runs: [...(adopted?.runs ?? [])],
    next: adopted?.next ?? 1,
    packs: adopted?.packs ?? 0,
    bytes: adopted?.bytes ?? 0,
  }
}

/** Chunks that are stored and that no run lists yet. */
export function pendingChunks(writer: RunWriter): number {
  let chunks = 0
  for (const pack of writer.pending) chunks += pack.chunkClasses.length
  return chunks
}

/**
 * Writes one run for the packs stored since the last; durable when it resolves. Fails: repo.busy, as the
 * store's put.
 */
export async function writeRun(writer: RunWriter): Promise<void> {
  if (writer.pending.length === 0) return
  const packs = writer.pending
  writer.pending = []
  const { repository, domain, packSet, indexKey } = writer.keys
  const number = writer.next++
  const run = { repository, domain, packSet, number, supersedes: [], ...runRecords(packs) }
  const object = encodeIndexRun(run, indexKey, randomBytes(16))
  const name = runName(Buffer.from(domain).toString('hex'), Buffer.from(packSet).toString('hex'), number)
  await putRun(writer.store, name, object)
  writer.runs.push({
    n: number,
    sha256: sha256(object).toString('hex'),
    entries: run.entries.length / INDEX_ENTRY_BYTES,
  })
  for (const pack of packs) {
    writer.packs++
    writer.bytes += pack.bytes
  }
}

/** Of two that work on one pack set the second one to come to a number ends: its packs stay, to be adopted. */
async function putRun(store: BlobStore, name: string, object: Buffer): Promise<void> {
  try {
    await store.put(name, object)
  } catch (cause) {
    if (!isFailure(cause, 'storage.exists')) throw cause
    // Something else that lies in the way is no other backup, and waiting would not help.
    if ((await store.stat(name).catch(() => undefined)) === undefined) throw cause
    const message =
      `Cannot write "${name}": another backup of this source, from another cache folder or host, ` +
      'works on the same packs, and was first (one may run at a time)'
    throw new Failure('repo.busy', message, { facts: { object: name }, cause })
  }
}

/** The pack set as the snapshot lists it, or undefined if nothing was written to it. */
export function lineageSet(writer: RunWriter): LineageSet | undefined {
  if (writer.runs.length === 0) return undefined
  const packSet = Buffer.from(writer.keys.packSet).toString('hex')
  return { packSet, runs: [...writer.runs], packs: writer.packs, bytes: writer.bytes }
}

/**
 * A local sorted run of these packs, to take the place of a session table. Its folder is emptied when the
 * backup ends.
 */
export function buildSessionRun(folder: string, packs: readonly StoredPack[]): SortedRun {
  const name = randomHex(32)
  const path = join(folder, `${name}.session`)
  const records = runRecords(packs)
  const builder = beginRun(path, name, records.entries.length / INDEX_ENTRY_BYTES)
  addRunEntries(builder, records.entries)
  finishRun(builder, records.packs)
  const run = openRun(path, name)
  assert(run, 'a run that was just written opens')
  return run
}

function runRecords(packs: readonly StoredPack[]): { packs: Buffer; entries: Buffer } {
  const count = packs.reduce((sum, pack) => sum + pack.chunkClasses.length, 0)
  const entries = Buffer.alloc(count * INDEX_ENTRY_BYTES)
  let at = 0
  packs.forEach((pack, place) => {
    for (let chunk = 0; chunk < pack.chunkClasses.length; chunk++, at += INDEX_ENTRY_BYTES) {
      const id = pack.chunkIds.subarray(chunk * CHUNK_ID_BYTES, (chunk + 1) * CHUNK_ID_BYTES)
      putIndexEntry(entries, at, id, { pack: place, chunk, class: pack.chunkClasses[chunk]! })
    }
  })
  const table = packs.map((pack) => ({
    id: pack.id,
    bytes: pack.bytes,
    chunks: pack.chunkClasses.length,
    kind: PACK_KINDS[pack.kind],
  }))
  return { packs: encodeIndexPacks(table), entries: sortIndexEntries(entries) }
}

/**
 * A log in a repository, for tests: a stream of bytes that can be told from its position, and a shipper that
 * puts tail pieces, merges them and deletes them as a real one does.
 */
import { addWriter } from '../../src/repo/key-changes.ts'
import { createKeys, openRepository, type Access } from '../../src/repo/keys.ts'
import { newKit, type Kit, type Writer } from '../../src/repo/kit.ts'
import { deleteTails, openLogWriter, putLog, sealLog } from '../../src/repo/log-writer.ts'
import type { LogPiece, LogWriter, SealedLog } from '../../src/repo/log-writer.ts'
import { memoryStore, type MemoryDisk } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'

export const LOG_BRANCH = '7531234567890123456-00000001'
export const LOG_SHIPPER = '00112233445566aa'
const NOW = Date.UTC(2026, 10, 22, 12)
export const logClock = { now: () => NOW, elapsed: () => 0 }

export interface LogWorld {
  readonly disk: MemoryDisk
  readonly store: BlobStore
  readonly kit: Kit
  /** The kit: may do everything. */
  readonly owner: Access
  /** A writer credential of a domain of its own: what ships. */
  readonly credential: Writer
  readonly access: Access
  readonly writer: LogWriter
}

export async function makeLogWorld(): Promise<LogWorld> {
  const disk: MemoryDisk = new Map()
  const store = memoryStore({ disk, clock: logClock })
  const kit = newKit()
  await createKeys({ store, kit, shop: 'acme', writer: 'host', clock: logClock })
  const { writer: credential } = await addWriter({ store, kit, clock: logClock }, 'db-1', () =>
    Promise.resolve(),
  )
  const owner = await openRepository(store, kit)
  const access = await openRepository(store, credential)
  return { disk, store, kit, owner, credential, access, writer: await openLogWriter(access) }
}

/** The byte of the stream at each position: some of it compresses, none of it repeats its neighbourhood. */
export function streamBytes(from: bigint, to: bigint): Buffer {
  const bytes = Buffer.alloc(Number(to - from))
  for (let at = 0; at < bytes.length; at++) {
    const position = Number(from) + at
    bytes[at] = (position >> 3) * 37 + (position >> 11)
  }
  return bytes
}

export interface TestShipper {
  readonly writer: LogWriter
  readonly branch: string
  readonly shipper: string
  /** Everything put and not deleted. */
  tails: SealedLog[]
  segments: SealedLog[]
  lastTail: SealedLog | undefined
}

export function newShipper(
  writer: LogWriter,
  of: { readonly branch?: string; readonly shipper?: string } = {},
): TestShipper {
  const { branch = LOG_BRANCH, shipper = LOG_SHIPPER } = of
  return { writer, branch, shipper, tails: [], segments: [], lastTail: undefined }
}

/** A piece of the stream, sealed and not yet put; the next of its kind. */
export function nextPiece(
  shipper: TestShipper,
  kind: 'segment' | 'tail',
  range: { readonly from: bigint; readonly to: bigint },
  change: Partial<LogPiece> = {},
): SealedLog {
  const last = kind === 'tail' ? shipper.lastTail : shipper.segments.at(-1)
  const lastPlace = last?.header.place
  const seq = lastPlace === undefined || lastPlace.kind === 'file' ? 1 : lastPlace.seq + 1
  const { branch, writer } = shipper
  const place = {
    domain: writer.domain,
    source: 'orders',
    branch,
    kind,
    shipper: shipper.shipper,
    seq,
  } as const
  return sealLog(writer, {
    place,
    sourceKind: 'postgres',
    from: range.from,
    body: streamBytes(range.from, range.to),
    notes: Buffer.from(`${kind} ${seq}`),
    begun: NOW - 1000,
    completed: NOW,
    previous: last?.header.sha256 ?? null,
    ...change,
  })
}

export async function shipPiece(
  shipper: TestShipper,
  kind: 'segment' | 'tail',
  range: { readonly from: bigint; readonly to: bigint },
): Promise<SealedLog> {
  const sealed = nextPiece(shipper, kind, range)
  await putLog(shipper.writer, sealed)
  if (kind === 'segment') shipper.segments.push(sealed)
  else {
    shipper.tails.push(sealed)
    shipper.lastTail = sealed
  }
  return sealed
}

/** Puts the segment that holds all tails, then deletes them. */
export async function mergeTails(shipper: TestShipper): Promise<{ deleted: number; kept: number }> {
  const { tails, writer } = shipper
  const range = { from: tails[0]!.header.from, to: tails.at(-1)!.header.to }
  const whole = await shipPiece(shipper, 'segment', range)
  shipper.tails = []
  return await deleteTails(
    writer,
    tails.map(({ header }) => header),
    [whole.header],
  )
}

/** All pieces of a reading. */
export async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const list: Uint8Array[] = []
  for await (const piece of pieces) list.push(piece)
  return list
}

/**
 * The payloads of snapshots and sessions and the sealed details of a snapshot: shapes, bounds and object
 * names (docs/format.md, section 8). Pure: signing is signed.ts, sealing is src/repo/keys.ts, the rules that
 * bind one snapshot to others (counter, lineage, kind) are src/repo's.
 */
import * as z from 'zod'
import { corrupt } from '../base/bytes.ts'
import { checkVersion, count, hex, name, parsePayload, time } from './shapes.ts'

const SNAPSHOT_VERSION = 1
export const SNAPSHOT_ID = /^[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}$/
export const SOURCE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** Bounds of every list in a snapshot. */
export const SNAPSHOT_LIMITS = {
  /** Pack sets of one lineage: a generation of hourly incrementals for five months. */
  lineage: 4096,
  runs: 65_536,
  refs: 4096,
  tags: 64,
  totals: 64,
  /** Files, directories and others each: readers walk a tree for as long as its snapshot says. */
  entries: 1_000_000_000,
  sealedBytes: 16 * 1024 * 1024,
  paths: 65_536,
  owners: 65_536,
  excludes: 65_536,
  errors: 10_000,
  textBytes: 16_384,
} as const

export type SnapshotKind = 'full' | 'differential' | 'incremental'

export interface LineageRun {
  readonly n: number
  readonly sha256: string
  readonly entries: number
}

/** One pack set that a snapshot may reference, with the index runs that describe it completely. */
export interface LineageSet {
  readonly packSet: string
  readonly runs: readonly LineageRun[]
  readonly packs: number
  readonly bytes: number
}

/**
 * Entries of the tree by type, which bound how long it is walked; and numbers for people: bytes, problems, …
 * by name.
 */
export interface SnapshotTotals extends Readonly<Record<string, number>> {
  readonly files: number
  readonly directories: number
  readonly others: number
}

/** Positions of a change stream (format.md, section 9): the backup is of use only with the log between. */
export interface SnapshotLog {
  readonly branch: string
  /** Decimal. */
  readonly from: string
  readonly to: string
  /** The snapshot itself holds the log from `from` up to here; null: it needs what is shipped. */
  readonly held: string | null
}

export interface Snapshot {
  readonly type: 'snapshot'
  readonly version: number
  readonly id: string
  readonly source: string
  readonly sourceKind: string
  readonly kind: SnapshotKind
  /** Pack set of the full. */
  readonly generation: string
  readonly packSet: string
  /** Id of the full: its own when it is one. */
  readonly full: string
  readonly parent: string | null
  /** 1, 2, … within the domain and source; the only order there is. */
  readonly counter: number
  /** SHA-256 of the object with counter−1, hex. */
  readonly previous: string | null
  readonly begun: string
  readonly completed: string
  readonly partial: boolean
  /** Oldest first. */
  readonly lineage: readonly LineageSet[]
  /** Tree node id of `/`, hex. */
  readonly root: string
  /** Chunk ids of the refs record's parts, hex, in order. */
  readonly refs: readonly string[]
  readonly epoch: number
  readonly tags: readonly string[]
  readonly totals: SnapshotTotals
  /** Where the source's log was when the backup began and ended; absent for sources without one. */
  readonly log?: SnapshotLog | undefined
  /** Base64 of the sealed SnapshotDetails. */
  readonly sealed: string
}

export interface Session {
  readonly type: 'session'
  readonly version: number
  readonly id: string
  readonly source: string
  readonly kind: SnapshotKind
  readonly generation: string
  readonly packSet: string
  readonly parent: string | null
  /** Key epoch that its packs are sealed to. */
  readonly epoch: number
  readonly begun: string
  /** Name of the snapshot object it may commit. */
  readonly snapshot: string
}

/** What only a reader of data may see. Paths and names are latin1 strings of raw bytes, as in FileEntry. */
export interface SnapshotDetails {
  readonly host: string
  readonly paths: readonly string[]
  readonly users: Readonly<Record<string, string>>
  readonly groups: Readonly<Record<string, string>>
  readonly excludes: readonly string[]
  readonly errors: readonly { readonly path: string; readonly what: string }[]
}

const id = z.string().regex(SNAPSHOT_ID, 'must be a snapshot id')
const source = z.string().regex(SOURCE_NAME, 'must be a source name')
const packSet = hex(16)
const kind = z.enum(['full', 'differential', 'incremental'])
const text = z.string().max(SNAPSHOT_LIMITS.textBytes)
const owners = z
  .record(z.string().regex(/^[0-9]{1,10}$/), z.string().max(256))
  .refine((record) => Object.keys(record).length <= SNAPSHOT_LIMITS.owners, 'has too many entries')

const entries = count.max(SNAPSHOT_LIMITS.entries)
const position = z.string().regex(/^[0-9]{1,20}$/, 'must be a position')

const snapshotShape: z.ZodType<Snapshot> = z.looseObject({
  type: z.literal('snapshot'),
  version: z.literal(SNAPSHOT_VERSION),
  id,
  source,
  sourceKind: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  kind,
  generation: packSet,
  packSet,
  full: id,
  parent: id.nullable(),
  counter: z.int().min(1),
  previous: hex(32).nullable(),
  begun: time,
  completed: time,
  partial: z.boolean(),
  lineage: z
    .array(
      z.looseObject({
        packSet,
        runs: z
          .array(z.looseObject({ n: z.int().min(0).max(999_999), sha256: hex(32), entries: count }))
          .max(SNAPSHOT_LIMITS.runs),
        packs: count,
        bytes: count,
      }),
    )
    .max(SNAPSHOT_LIMITS.lineage),
  root: hex(32),
  refs: z.array(hex(32)).max(SNAPSHOT_LIMITS.refs),
  epoch: z.int().min(1).max(0xffff_ffff),
  tags: z.array(name).max(SNAPSHOT_LIMITS.tags),
  totals: z
    .object({ files: entries, directories: entries, others: entries })
    .catchall(count)
    .refine((record) => Object.keys(record).length <= SNAPSHOT_LIMITS.totals, 'has too many entries'),
  log: z
    .looseObject({
      branch: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be a log branch'),
      from: position,
      to: position,
      held: position.nullable(),
    })
    .optional(),
  sealed: z
    .string()
    .max(SNAPSHOT_LIMITS.sealedBytes)
    .regex(/^[A-Za-z0-9+/]*={0,2}$/, 'must be base64'),
})

const sessionShape: z.ZodType<Session> = z.looseObject({
  type: z.literal('session'),
  version: z.literal(SNAPSHOT_VERSION),
  id,
  source,
  kind,
  generation: packSet,
  packSet,
  parent: id.nullable(),
  epoch: z.int().min(1).max(0xffff_ffff),
  begun: time,
  snapshot: z.string().max(512),
})

const detailsShape: z.ZodType<SnapshotDetails> = z.looseObject({
  host: z.string().max(256),
  paths: z.array(text).max(SNAPSHOT_LIMITS.paths),
  users: owners,
  groups: owners,
  excludes: z.array(text).max(SNAPSHOT_LIMITS.excludes),
  errors: z.array(z.looseObject({ path: text, what: text })).max(SNAPSHOT_LIMITS.errors),
})

/** A snapshot from its parsed JSON; `what` is the object's name. Fails: repo.newer, repo.corrupt. */
export function parseSnapshot(payload: unknown, what: string): Snapshot {
  checkVersion(payload, SNAPSHOT_VERSION, what)
  const snapshot = parsePayload(snapshotShape, payload, what)
  if ((snapshot.counter === 1) !== (snapshot.previous === null))
    throw corrupt(what, 'has no fitting predecessor')
  if (
    snapshot.kind === 'full' &&
    (snapshot.full !== snapshot.id || snapshot.generation !== snapshot.packSet)
  ) {
    throw corrupt(what, 'is a full that depends on another')
  }
  if (new Set(snapshot.lineage.map((each) => each.packSet)).size !== snapshot.lineage.length) {
    throw corrupt(what, 'lists a pack set twice')
  }
  return snapshot
}

/** A session from its parsed JSON. Fails: repo.newer, repo.corrupt. */
export function parseSession(payload: unknown, what: string): Session {
  checkVersion(payload, SNAPSHOT_VERSION, what)
  return parsePayload(sessionShape, payload, what)
}

/** Details from their opened bytes. Fails: repo.corrupt. */
export function decodeDetails(plaintext: Uint8Array, what: string): SnapshotDetails {
  let payload: unknown
  try {
    payload = JSON.parse(Buffer.from(plaintext).toString('utf8'))
  } catch {
    // The parser's message may quote the text, which is secret.
    throw corrupt(what, 'is not JSON')
  }
  return parsePayload(detailsShape, payload, what)
}

/** The bytes to seal. */
export function encodeDetails(details: SnapshotDetails): Buffer {
  return Buffer.from(JSON.stringify(details), 'utf8')
}

/** Snapshot id from the start (milliseconds since 1970) and 4 random bytes: `20261122t143323z-4f8a2c1d`. */
export function snapshotId(begunMs: number, random: Uint8Array): string {
  const stamp = new Date(begunMs).toISOString().slice(0, 19).replace(/[-:]/g, '').toLowerCase()
  return `${stamp}z-${Buffer.from(random).toString('hex').slice(0, 8)}`
}

/** `d/<domain>/snapshots/<source>/<id>` */
export function snapshotName(domain: string, source: string, id: string): string {
  return `d/${domain}/snapshots/${source}/${id}`
}

/** `sessions/<domain>/<source>/<id>` */
export function sessionName(domain: string, source: string, id: string): string {
  return `sessions/${domain}/${source}/${id}`
}

/**
 * Reading what there is of logs: the verified headers of every branch, from one listing and one small read an
 * object. An object that cannot be believed is a finding and not in the list. Needs no key: headers are
 * signed, not sealed. Contents are log-reader.ts, writing is log-writer.ts.
 */
import { corrupt } from '../base/bytes.ts'
import { formatTime, parseTime } from '../base/clock.ts'
import { mapConcurrent } from '../base/concurrent.ts'
import { Failure, isFailure } from '../base/failure.ts'
import type { Config, ConfigDomain } from '../format/config.ts'
import { parseLogName, type LogFilePlace } from '../format/log-header.ts'
import {
  decodeLogHeader,
  decodeLogStart,
  LOG_START_BYTES,
  type StoredLogHeader,
} from '../format/log-segment.ts'
import type { BlobStat, BlobStore } from '../storage/store.ts'
import { isDamage, isUnreadable } from './damage.ts'
import type { Access } from './keys.ts'
import { judgeBranch, type LogFinding, type LogFindingCode } from './log-findings.ts'
import {
  addHeader,
  addRow,
  newLogTable,
  rowFinder,
  segmentAt,
  sortTable,
  type LogTable,
} from './log-table.ts'

/** One read that holds nearly every header, and often the notes. */
const FRONT_BYTES = 4096
/** Headers read at once, and names held at once. */
const READS_MAX = 16
const BATCH_NAMES = 512
/** A shipper merges and deletes tails while they are listed: what looks like damage then is listed again. */
const PASSES_MAX = 3
/** Of one listing; more are counted. */
const FINDINGS_MAX = 10_000
const FILES_MAX = 65_536

export interface LogScope {
  readonly domain?: string
  readonly source?: string
  /** Only with `source`. */
  readonly branch?: string
}

export interface LogListOptions extends LogScope {
  /** Headers that were verified before, by branch; only for speed: loadLogTable(), or an earlier list. */
  readonly known?: (of: LogBranch) => LogTable | undefined
  /** Which branches are this source's: others are findings. Default: all. */
  readonly isOwnBranch?: (of: LogBranch) => boolean
  readonly signal?: AbortSignal
}

export type LogBranch = Pick<LogTable, 'domain' | 'source' | 'branch'>

/** A file beside a stream: its header, verified. */
export interface StoredLogFile extends StoredLogHeader {
  readonly place: LogFilePlace
}

export interface LogList {
  /** By domain, source and branch; rows by position. */
  readonly branches: readonly LogTable[]
  readonly files: readonly StoredLogFile[]
  readonly findings: readonly LogFinding[]
  /** Findings beyond the bound. */
  readonly leftOut: number
}

/**
 * The logs of all domains, or of the scope. Memory: 120 bytes a segment. Fails: as list() when the store as a
 * whole does not answer, cancelled.
 */
export async function listLogs(access: Access, options: LogListOptions = {}): Promise<LogList> {
  let known = options.known
  let gapsBefore = ''
  for (let pass = 1; ; pass++) {
    const listing = newListing(access, { ...options, ...(known === undefined ? {} : { known }) })
    for (const domain of access.config.domains)
      if (options.domain === undefined || options.domain === domain.id) await listDomain(listing, domain)
    const { branches } = listing
    for (const table of branches.values()) {
      sortTable(table)
      for (const each of judgeBranch(table)) note(listing, each)
    }
    const gaps = listing.findings.filter(isOfMerging).map(({ message }) => message)
    const isSettled = listing.vanished === 0 && gaps.join() === gapsBefore
    if (isSettled || pass === PASSES_MAX) return finishList(listing)
    gapsBefore = gaps.join()
    known = (of) => branches.get(branchKey(of)) ?? options.known?.(of)
  }
}

/** What a shipper that puts, merges and deletes meanwhile can make a listing say. */
function isOfMerging({ code }: LogFinding): boolean {
  return code === 'log.gap' || code === 'log.hidden'
}

/**
 * Reads and verifies a header: one read, or two if it is very long. Fails: key.revoked, as decodeLogHeader(),
 * get().
 */
export async function readLogHeader(
  store: BlobStore,
  config: Config,
  object: Pick<BlobStat, 'name' | 'bytes'>,
): Promise<StoredLogHeader> {
  const { name, bytes } = object
  let front = await store.get(name, { length: Math.min(bytes, FRONT_BYTES) })
  const end = LOG_START_BYTES + decodeLogStart(front, name)
  if (end > bytes) throw corrupt(name, 'ends within its header')
  if (end > front.length) front = await store.get(name, { length: end })
  return decodeFront(config, name, bytes, front)
}

/**
 * readLogHeader() of bytes that were read; the domain's writer must have signed, and not after it was
 * revoked.
 */
export function decodeFront(config: Config, name: string, bytes: number, front: Uint8Array): StoredLogHeader {
  const id = parseLogName(name)?.domain
  const domain = config.domains.find((each) => each.id === id)
  if (domain === undefined) throw corrupt(name, `lies in a domain that config/${config.n} does not list`)
  const signingPublic = signingKeyOf(domain)
  const { repository } = config
  const header = decodeLogHeader(front, { name, repository, signingPublic, bytes })
  refuseLate(domain, name, header.completed)
  return header
}

/** One buffer a key, so that it is imported once. */
const signingKeys = new WeakMap<ConfigDomain, Buffer>()

function signingKeyOf(domain: ConfigDomain): Buffer {
  const known = signingKeys.get(domain)
  if (known !== undefined) return known
  const key = Buffer.from(domain.writer.signing, 'hex')
  signingKeys.set(domain, key)
  return key
}

/** What a revoked writer completed later, by its own claim, does not count. Fails: key.revoked. */
function refuseLate({ writer }: ConfigDomain, name: string, completed: number): void {
  if (writer.revoked === null || completed <= (parseTime(writer.revoked) ?? 0)) return
  const after = `after its writer "${writer.name}" was revoked (${writer.revoked})`
  const message = `Cannot trust ${name}: it was completed at ${formatTime(completed)}, ${after}`
  throw new Failure('key.revoked', message, { facts: { name } })
}

interface Listing {
  readonly access: Access
  readonly options: LogListOptions
  readonly branches: Map<string, LogTable>
  readonly files: StoredLogFile[]
  readonly findings: LogFinding[]
  readonly finders: Map<string, { table: LogTable; find: ReturnType<typeof rowFinder> } | undefined>
  leftOut: number
  /** Objects that were listed and gone when they were read. */
  vanished: number
}

function newListing(access: Access, options: LogListOptions): Listing {
  return {
    access,
    options,
    branches: new Map(),
    files: [],
    findings: [],
    finders: new Map(),
    leftOut: 0,
    vanished: 0,
  }
}

async function listDomain(listing: Listing, domain: ConfigDomain): Promise<void> {
  const { store } = listing.access
  const { source, branch, signal } = listing.options
  const parts = [source, source === undefined ? undefined : branch].filter((part) => part !== undefined)
  const prefix = `d/${domain.id}/logs/${parts.map((part) => `${part}/`).join('')}`
  let batch: BlobStat[] = []
  const flush = async (): Promise<void> => {
    if (signal?.aborted === true) throw new Failure('cancelled', 'Stopped listing logs')
    await mapConcurrent(batch, READS_MAX, (stat) => takeObject(listing, domain, stat))
    batch = []
  }
  for await (const stat of store.list(prefix)) {
    batch.push(stat)
    if (batch.length === BATCH_NAMES) await flush()
  }
  await flush()
}

async function takeObject(listing: Listing, domain: ConfigDomain, stat: BlobStat): Promise<void> {
  const { name, bytes } = stat
  const place = parseLogName(name)
  if (place === undefined) {
    noteObject(listing, 'log.unknown', name, `${name} is no name of a log object`)
    return
  }
  try {
    if (place.kind !== 'file' && takeKnown(listing, domain, name, bytes)) return
    const { store, config } = listing.access
    const header = await readLogHeader(store, config, { name, bytes })
    const isKept = place.kind === 'file' ? addFile(listing, header, place) : addPiece(listing, header)
    if (!isKept) noteObject(listing, 'log.unknown', name, `${name} is one of too many: it is left out`)
  } catch (error) {
    takeFailure(listing, name, error)
  }
}

function takeFailure(listing: Listing, name: string, error: unknown): void {
  if (isFailure(error, 'key.revoked')) {
    noteObject(listing, 'log.revoked', name, error.message)
    return
  }
  if (!isDamage(error)) throw error
  if (error.code === 'storage.missing') listing.vanished++
  else noteObject(listing, codeOf(error), name, error.message)
}

function codeOf(failure: Failure): LogFindingCode {
  if (isUnreadable(failure)) return 'log.unreadable'
  if (failure.code === 'repo.forged') return 'log.forged'
  if (failure.code === 'repo.foreign') return 'log.foreign'
  return failure.code === 'repo.newer' ? 'log.newer' : 'log.corrupt'
}

/** Takes a row over from a table that was verified before. */
function takeKnown(listing: Listing, domain: ConfigDomain, name: string, bytes: number): boolean {
  const place = parseLogName(name)
  if (place === undefined || place.kind === 'file') return false
  const key = branchKey(place)
  if (!listing.finders.has(key)) {
    const table = listing.options.known?.(place)
    listing.finders.set(key, table === undefined ? undefined : { table, find: rowFinder(table) })
  }
  const finder = listing.finders.get(key)
  const at = finder?.find(place)
  if (finder === undefined || at === undefined) return false
  const row = segmentAt(finder.table, at)
  if (row.bytes !== bytes) return false
  refuseLate(domain, name, row.completed)
  return addRow(tableOf(listing, place, finder.table.sourceKind), finder.table, at)
}

function addPiece(listing: Listing, header: StoredLogHeader): boolean {
  return addHeader(tableOf(listing, header.place, header.sourceKind), header)
}

function addFile(listing: Listing, header: StoredLogHeader, place: LogFilePlace): boolean {
  if (listing.files.length === FILES_MAX) return false
  listing.files.push({ ...header, place })
  return true
}

function tableOf(listing: Listing, of: LogBranch, sourceKind: string): LogTable {
  const key = branchKey(of)
  let table = listing.branches.get(key)
  if (table === undefined) {
    table = newLogTable({ ...of, sourceKind })
    listing.branches.set(key, table)
    const { isOwnBranch } = listing.options
    if (isOwnBranch?.(table) === false) {
      const { domain, source, branch } = of
      const message = `Log "${source}": branch ${branch} is not of this source`
      note(listing, {
        code: 'log.branch',
        message,
        domain,
        source,
        branch,
        object: undefined,
        range: undefined,
      })
    }
  }
  return table
}

function branchKey({ domain, source, branch }: LogBranch): string {
  return `${domain}/${source}/${branch}`
}

function noteObject(listing: Listing, code: LogFindingCode, object: string, message: string): void {
  const [, domain = '', , source, branch] = object.split('/')
  note(listing, { code, message, domain, source, branch, object, range: undefined })
}

function note(listing: Listing, finding: LogFinding): void {
  if (listing.findings.length < FINDINGS_MAX) listing.findings.push(finding)
  else listing.leftOut++
}

function finishList(listing: Listing): LogList {
  const branches = [...listing.branches.values()]
  const byKey = (a: LogTable, b: LogTable): number => (branchKey(a) < branchKey(b) ? -1 : 1)
  const files = listing.files.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  return { branches: branches.sort(byKey), files, findings: listing.findings, leftOut: listing.leftOut }
}

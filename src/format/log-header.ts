/**
 * Log objects by name and by header: where a piece of a source's change stream lies, and what its signed
 * header says (docs/format.md, section 9). Not here: the sealed sections behind the header (log-segment.ts).
 *
 * | kind    | what it is                                              | name below `d/<domain>/logs/<source>/<branch>/` |
 * | ------- | ------------------------------------------------------- | ----------------------------------------------- |
 * | segment | a stretch of the stream, kept                           | `<shipper>/<seq>`                               |
 * | tail    | the last seconds, until a segment that covers it exists | `<shipper>/tail/<seq>`                          |
 * | file    | a small object beside the stream, named by the source   | `files/<name>`                                  |
 */
import * as z from 'zod'
import { corrupt } from '../base/bytes.ts'
import { formatTime, parseTime } from '../base/clock.ts'
import { assert } from '../base/failure.ts'
import { SEALED_EXTRA_BYTES } from './seal.ts'
import { checkVersion, count, hex, parsePayload, time } from './shapes.ts'

const LOG_VERSION = 1
const AES_KEY_BYTES = 32
const SEALED_KEY_CHARS = Math.ceil((AES_KEY_BYTES + SEALED_EXTRA_BYTES) / 3) * 4

/** Plaintext of one frame of the body; the last one is shorter. */
export const LOG_FRAME_BYTES = 1024 * 1024
/** What a shipper merges tail pieces to: sixteen frames. */
export const LOG_SEGMENT_BYTES = 16 * 1024 * 1024

/** Bounds of a log object. Plaintext bytes, but for `headerBytes`. */
export const LOG_LIMITS = {
  headerBytes: 16 * 1024,
  notesBytes: 4 * 1024 * 1024,
  bodyBytes: 64 * 1024 * 1024,
  /** What a section or frame may be stored in above its plaintext: the tag, and a codec's own bytes. */
  overheadBytes: 1024,
  /** Twelve digits: one a second for 30 000 years. */
  seq: 999_999_999_999,
} as const

interface LogStream {
  readonly domain: string
  readonly source: string
  /** What positions count in: a timeline of one server, as the source spells it. */
  readonly branch: string
}

export interface LogPiecePlace extends LogStream {
  readonly kind: 'segment' | 'tail'
  /** The spool that sent it: 8 random bytes, hex. */
  readonly shipper: string
  /** 1, 2, … within branch, shipper and kind. */
  readonly seq: number
}

export interface LogFilePlace extends LogStream {
  readonly kind: 'file'
  readonly file: string
}

export type LogPlace = LogPiecePlace | LogFilePlace

/** A sealed section or frame: its bytes in the object, its bytes of plaintext, and how these are compressed. */
export interface LogFramePlace {
  readonly storedBytes: number
  readonly plainBytes: number
  readonly codec: number
}

/** What a header says; all of it is signed. */
export interface LogHeader {
  readonly place: LogPlace
  readonly sourceKind: string
  /** The body holds positions [from, to); of a `file`, from is 0. */
  readonly from: bigint
  readonly to: bigint
  /** When the first and the last of its bytes came in, milliseconds. */
  readonly begun: number
  readonly completed: number
  /** SHA-256 of the signed header with seq−1, hex; null of the first, and of files. */
  readonly previous: string | null
  readonly epoch: number
  /**
   * logContentId() of the body, hex: the same for two copies of the same bytes, tells nothing without the
   * key.
   */
  readonly content: string
  /** The key of the sections, sealed to the epoch's data key. */
  readonly sealedKey: Buffer
  readonly notes: LogFramePlace
  /** SHA-256 of the sealed section, hex. */
  readonly notesSha256: string
  readonly frames: readonly LogFramePlace[]
  readonly bodySha256: string
}

const BRANCH = '[a-z0-9][a-z0-9._-]{0,62}'
const LOG_BRANCH = new RegExp(`^${BRANCH}$`)
const LOG_FILE = /^[a-z0-9_-][a-z0-9._-]{0,127}$/
const LOG_SHIPPER = /^[0-9a-f]{16}$/
const LOG_NAME = new RegExp(
  `^d/([0-9a-f]{16})/logs/(${BRANCH})/(${BRANCH})/` +
    '(?:([0-9a-f]{16})/(tail/)?([0-9]{12})|files/([a-z0-9_-][a-z0-9._-]{0,127}))$',
)

/** The object's name. */
export function logName(place: LogPlace): string {
  const { domain, source, branch } = place
  assert(LOG_BRANCH.test(branch) && LOG_BRANCH.test(source), `log branch "${source}/${branch}"`)
  const stream = `d/${domain}/logs/${source}/${branch}`
  if (place.kind === 'file') {
    assert(LOG_FILE.test(place.file), `log file "${place.file}"`)
    return `${stream}/files/${place.file}`
  }
  const { kind, shipper, seq } = place
  assert(LOG_SHIPPER.test(shipper), `shipper "${shipper}"`)
  assert(Number.isSafeInteger(seq) && seq >= 1 && seq <= LOG_LIMITS.seq, `log number ${seq}`)
  return `${stream}/${shipper}/${kind === 'tail' ? 'tail/' : ''}${String(seq).padStart(12, '0')}`
}

/** The place that a name stands for; undefined if it is no log object's. */
export function parseLogName(name: string): LogPlace | undefined {
  const match = LOG_NAME.exec(name)
  if (match === null) return undefined
  const [, domain = '', source = '', branch = '', shipper = '', tail, digits = '', file] = match
  if (file !== undefined) return { domain, source, branch, kind: 'file', file }
  const seq = Number(digits)
  if (seq === 0) return undefined
  return { domain, source, branch, kind: tail === undefined ? 'segment' : 'tail', shipper, seq }
}

const position = z.string().regex(/^[0-9a-f]{16}$/, 'must be a position: 16 hex digits')
const stored = z.tuple([z.int().min(0), z.int().min(0).max(255)])

const headerShape = z.looseObject({
  type: z.literal('log'),
  version: z.literal(LOG_VERSION),
  sourceKind: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/),
  from: position,
  to: position,
  begun: time,
  completed: time,
  previous: hex(32).nullable(),
  epoch: z.int().min(1).max(0xffff_ffff),
  content: hex(32),
  key: z
    .string()
    .length(SEALED_KEY_CHARS)
    .regex(/^[A-Za-z0-9+/]*={0,2}$/, 'must be base64'),
  notes: z.looseObject({
    plainBytes: count.max(LOG_LIMITS.notesBytes),
    stored,
    sha256: hex(32),
  }),
  body: z.looseObject({
    frames: z.array(stored).max(LOG_LIMITS.bodyBytes / LOG_FRAME_BYTES),
    sha256: hex(32),
  }),
})

/** The payload to sign. */
export function logPayload(header: LogHeader): object {
  const { notes } = header
  const pair = ({ storedBytes, codec }: LogFramePlace): [number, number] => [storedBytes, codec]
  return {
    type: 'log',
    version: LOG_VERSION,
    sourceKind: header.sourceKind,
    from: formatPosition(header.from),
    to: formatPosition(header.to),
    begun: formatTime(header.begun),
    completed: formatTime(header.completed),
    previous: header.previous,
    epoch: header.epoch,
    content: header.content,
    key: header.sealedKey.toString('base64'),
    notes: { plainBytes: notes.plainBytes, stored: pair(notes), sha256: header.notesSha256 },
    body: { frames: header.frames.map(pair), sha256: header.bodySha256 },
  }
}

/** A header from its parsed JSON; `name` is the object's. Fails: repo.newer, repo.corrupt. */
export function parseLogHeader(payload: unknown, place: LogPlace, name: string): LogHeader {
  checkVersion(payload, LOG_VERSION, name)
  const fields = parsePayload(headerShape, payload, name)
  const [from, to] = [BigInt(`0x${fields.from}`), BigInt(`0x${fields.to}`)]
  const bytes = to - from
  if (bytes < 0n || bytes > LOG_LIMITS.bodyBytes)
    throw corrupt(name, `claims ${bytes} bytes of log (0 to ${LOG_LIMITS.bodyBytes})`)
  const isFirst = place.kind === 'file' || place.seq === 1
  if (isFirst !== (fields.previous === null)) throw corrupt(name, 'has no fitting predecessor')
  if (place.kind === 'file' && from !== 0n) throw corrupt(name, 'is a file that does not begin at 0')
  const { notes } = fields
  return {
    place,
    sourceKind: fields.sourceKind,
    from,
    to,
    begun: parseTime(fields.begun) ?? 0,
    completed: parseTime(fields.completed) ?? 0,
    previous: fields.previous,
    epoch: fields.epoch,
    content: fields.content,
    sealedKey: Buffer.from(fields.key, 'base64'),
    notes: framePlace(notes.stored, notes.plainBytes, name),
    notesSha256: notes.sha256,
    frames: framePlaces(fields.body.frames, Number(bytes), name),
    bodySha256: fields.body.sha256,
  }
}

/** Bytes of the sealed body. */
export function sealedBodyBytes({ frames }: LogHeader): number {
  return frames.reduce((sum, frame) => sum + frame.storedBytes, 0)
}

/** 16 hex digits, so that positions sort as texts. */
function formatPosition(at: bigint): string {
  assert(at >= 0n && at < 1n << 64n, 'a position is a u64')
  return at.toString(16).padStart(16, '0')
}

/** All frames but the last are full, so that their number and plaintext follow from the body's length. */
function framePlaces(pairs: readonly [number, number][], bytes: number, name: string): LogFramePlace[] {
  const frames = Math.ceil(bytes / LOG_FRAME_BYTES)
  if (pairs.length !== frames) throw corrupt(name, `lists ${pairs.length} frames (must be ${frames})`)
  return pairs.map((pair, at) =>
    framePlace(pair, Math.min(LOG_FRAME_BYTES, bytes - at * LOG_FRAME_BYTES), name),
  )
}

/** Before anything is read or allocated by these numbers. */
function framePlace([storedBytes, codec]: [number, number], plainBytes: number, name: string): LogFramePlace {
  if (storedBytes > plainBytes + LOG_LIMITS.overheadBytes)
    throw corrupt(name, `stores ${plainBytes} bytes in ${storedBytes}`)
  return { storedBytes, plainBytes, codec }
}

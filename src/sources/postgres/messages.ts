/**
 * Messages of PostgreSQL's protocol, version 3 (documentation, chapter "Message Formats"): type u8, length
 * u32 with itself, payload. The cutter copies nothing but messages that two reads share, since a base backup
 * is gigabytes of them.
 */
import { newWriter, putBytes, type ByteWriter } from '../../base/bytes.ts'
import { assert, Failure } from '../../base/failure.ts'

/** Types that the server sends, by what they are called in the documentation. */
export const MESSAGE = {
  commandComplete: 0x43,
  copyBoth: 0x57,
  copyData: 0x64,
  copyDone: 0x63,
  copyOut: 0x48,
  dataRow: 0x44,
  error: 0x45,
  notice: 0x4e,
  parameterStatus: 0x53,
  readyForQuery: 0x5a,
  rowDescription: 0x54,
} as const

/** `payload` is valid during the call only. */
export type OnMessage = (type: number, payload: Buffer) => void

export interface MessageCutter {
  readonly onMessage: OnMessage
  /** Header and payload of a message of which a part is missing. */
  readonly partial: ByteWriter
}

const HEADER_BYTES = 5
const PARTIAL_BYTES = 64 * 1024
/** The server itself allows a gigabyte for a message (PQ_LARGE_MESSAGE_LIMIT). */
const MESSAGE_BYTES_MAX = 1 << 30

export function newMessageCutter(onMessage: OnMessage): MessageCutter {
  return { onMessage, partial: newWriter(PARTIAL_BYTES) }
}

/** Calls onMessage for each message that is whole by now. Keeps no view of `bytes`. Fails: source.failed. */
export function cutMessages(cutter: MessageCutter, bytes: Buffer): void {
  let at = cutter.partial.length > 0 ? finishPartial(cutter, bytes) : 0
  while (bytes.length - at >= HEADER_BYTES) {
    const end = at + messageBytes(bytes, at)
    if (end > bytes.length) break
    cutter.onMessage(bytes[at]!, bytes.subarray(at + HEADER_BYTES, end))
    at = end
  }
  if (at < bytes.length) putBytes(cutter.partial, bytes.subarray(at))
}

/** Completes the message under way as far as `bytes` go; returns how many of them it took. */
function finishPartial({ partial, onMessage }: MessageCutter, bytes: Buffer): number {
  const header = Math.min(Math.max(0, HEADER_BYTES - partial.length), bytes.length)
  putBytes(partial, bytes.subarray(0, header))
  if (partial.length < HEADER_BYTES) return header
  const total = messageBytes(partial.bytes, 0)
  const taken = Math.min(header + total - partial.length, bytes.length)
  putBytes(partial, bytes.subarray(header, taken))
  if (partial.length < total) return taken
  partial.length = 0
  onMessage(partial.bytes[0]!, partial.bytes.subarray(HEADER_BYTES, total))
  return taken
}

function messageBytes(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32BE(at + 1)
  if (length < 4 || length > MESSAGE_BYTES_MAX)
    throw new Failure('source.failed', `Cannot understand the server: a message has ${length} bytes`)
  return 1 + length
}

/** Encodes a message of the client. */
export function encodeMessage(type: string, payload: Uint8Array): Buffer {
  assert(type.length === 1, 'a message type is one character')
  const message = Buffer.allocUnsafe(HEADER_BYTES + payload.length)
  message[0] = type.charCodeAt(0)
  message.writeUInt32BE(4 + payload.length, 1)
  message.set(payload, HEADER_BYTES)
  return message
}

/** The columns of a DataRow as text; null where the server says so. */
export function decodeRow(payload: Buffer): (string | null)[] {
  let at = 2
  return Array.from({ length: payload.readUInt16BE(0) }, () => {
    const bytes = payload.readInt32BE(at)
    at += 4
    if (bytes < 0) return null
    at += bytes
    return payload.toString('utf8', at - bytes, at)
  })
}

/** What an ErrorResponse or NoticeResponse says. */
export interface ServerMessage {
  readonly severity: string
  /** SQLSTATE. */
  readonly code: string
  readonly message: string
  readonly detail: string
  readonly hint: string
}

export function decodeServerMessage(payload: Buffer): ServerMessage {
  const fields = new Map<string, string>()
  for (let at = 0; at < payload.length && payload[at] !== 0;) {
    const end = payload.indexOf(0, at + 1)
    if (end < 0) break
    fields.set(String.fromCharCode(payload[at]!), payload.toString('utf8', at + 1, end))
    at = end + 1
  }
  const field = (name: string): string => fields.get(name) ?? ''
  return {
    severity: fields.get('V') ?? field('S'),
    code: field('C'),
    message: field('M'),
    detail: field('D'),
    hint: field('H'),
  }
}

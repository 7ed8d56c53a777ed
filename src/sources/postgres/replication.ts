/**
 * A connection of PostgreSQL's replication protocol (documentation, chapter "Streaming Replication
 * Protocol"). The library `pg` logs in; then its socket is ours, since a base backup is gigabytes of messages
 * that the library would copy one by one.
 */
import { Socket } from 'node:net'
import { TLSSocket, type ConnectionOptions } from 'node:tls'
import type { Client } from 'pg'
import { describeError, Failure } from '../../base/failure.ts'
import { connectionFailure, logIn, shownPlace } from './log-in.ts'
import {
  cutMessages,
  decodeRow,
  decodeServerMessage,
  encodeMessage,
  MESSAGE,
  newMessageCutter,
  type MessageCutter,
  type ServerMessage,
} from './messages.ts'

export interface Password {
  readonly text: string
  /** Where it was found, for the message when it is wrong. */
  readonly from: string
}

export interface ServerPlace {
  /** A name or address, or the folder of a Unix socket. */
  readonly host: string
  readonly port: number
  readonly user: string
  /**
   * Or how to look it up for a database (`replication` for this protocol), asked only where the server wants
   * one; it throws when there is none.
   */
  readonly password: string | undefined | ((database: string) => Password)
  /** false: none. Certificates are checked as these options say. A Unix socket never has TLS. */
  readonly tls: false | ConnectionOptions
  /** The same, to try where the server refuses `tls`. */
  readonly tlsElse?: false | ConnectionOptions
  /** 0: as long as the system waits. */
  readonly connectTimeoutMs: number
  /** What the server shows of us; undefined: our name. */
  readonly applicationName?: string | undefined
}

/** What a command's messages are given to. Payloads are valid during the call only. */
export interface CommandEvents {
  /**
   * A server that says nothing for so long is given up. Time in which we do not read does not count, nor,
   * with `isPatient`, what comes before the first CopyData: a checkpoint takes its time.
   */
  readonly silenceMs?: number
  readonly isPatient?: boolean
  readonly onRow?: (row: (string | null)[]) => void
  /**
   * A CopyData message. Returns true to pause the reading until resumeReplication(); what has been read
   * already, a megabyte at most, still comes.
   */
  readonly onData?: (payload: Buffer) => boolean | void
  /** The server begins to send CopyData: one archive each before version 15. */
  readonly onCopyOut?: () => void
  /** The server sends and takes CopyData from now on. */
  readonly onCopyBoth?: () => void
  /** The server sends no more CopyData of this copy. */
  readonly onCopyDone?: () => void
}

interface Command extends CommandEvents {
  readonly sql: string
  error: ServerMessage | undefined
  /** Looks since the server was heard last; undefined: it may be silent. */
  quietLooks: number | undefined
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export interface Replication {
  readonly place: ServerPlace
  readonly socket: Socket
  readonly cutter: MessageCutter
  command: Command | undefined
  isPaused: boolean
  /** Why nothing more can be asked. */
  ended: Failure | undefined
}

/** One read of the socket; also what it costs in memory. */
const READ_BYTES = 1024 * 1024
/** An idle connection is probed, so that a host that is gone ends even a command that may be silent. */
const PROBE_AFTER_MS = 60_000
const SILENCE_MS = 60_000
const QUIET_LOOKS = 10

/** Logs in. End with closeReplication(). Fails: source.failed, with the server's `sqlstate`. */
export async function openReplication(place: ServerPlace): Promise<Replication> {
  const hands = { take: undefined as ((bytes: Buffer) => boolean) | undefined }
  const newSocket = (): Socket => readingSocket(hands)
  const client = await logIn(place, { database: undefined, newSocket })
  const socket = takeSocket(client)
  socket.setKeepAlive(true, PROBE_AFTER_MS)
  const replication: Replication = {
    place,
    socket,
    cutter: newMessageCutter((type, payload) => takeMessage(replication, type, payload)),
    command: undefined,
    isPaused: false,
    ended: undefined,
  }
  hands.take = (bytes) => {
    takeBytes(replication, bytes)
    return !replication.isPaused
  }
  // The buffer is the one of the socket below, which holds what is encrypted.
  if (socket instanceof TLSSocket) socket.on('data', (bytes: Buffer) => takeBytes(replication, bytes))
  socket.on('error', (error) =>
    endReplication(replication, connectionFailure(place, describeError(error), error)),
  )
  socket.on('close', () => endReplication(replication, connectionFailure(place, 'the connection was closed')))
  return replication
}

/**
 * Runs one command and resolves with the rows of its result sets when the server is ready for the next. Only
 * one at a time. Fails: source.failed, with the server's words, or when it is silent for too long (a minute
 * unless told).
 */
export async function runCommand(
  replication: Replication,
  sql: string,
  events: CommandEvents = {},
): Promise<(string | null)[][]> {
  if (replication.ended !== undefined) throw replication.ended
  const rows: (string | null)[][] = []
  const onRow = events.onRow ?? ((row: (string | null)[]) => rows.push(row))
  const silenceMs = events.silenceMs ?? SILENCE_MS
  let timer: NodeJS.Timeout | undefined
  try {
    await new Promise<void>((resolve, reject) => {
      const quietLooks = events.isPatient === true ? undefined : 0
      const command: Command = { ...events, onRow, sql, error: undefined, quietLooks, resolve, reject }
      replication.command = command
      if (Number.isFinite(silenceMs))
        timer = setInterval(() => lookForSilence(replication, command, silenceMs), silenceMs / QUIET_LOOKS)
      replication.socket.write(encodeMessage('Q', Buffer.from(`${sql}\0`)))
    })
  } finally {
    clearInterval(timer)
  }
  return rows
}

function lookForSilence(replication: Replication, command: Command, silenceMs: number): void {
  if (command.quietLooks === undefined || replication.isPaused) return
  if (++command.quietLooks <= QUIET_LOOKS) return
  const [verb = ''] = command.sql.split(/[ (]/)
  const is = `it says nothing for ${silenceMs / 1000} s (in ${verb})`
  endReplication(replication, connectionFailure(replication.place, is))
  replication.socket.destroy()
}

/** Sends CopyData; the server must be in a copy that takes it. */
export function sendData(replication: Replication, payload: Uint8Array): void {
  replication.socket.write(encodeMessage('d', payload))
}

/** Tells that no more CopyData comes from us. */
export function sendCopyDone(replication: Replication): void {
  replication.socket.write(encodeMessage('c', Buffer.alloc(0)))
}

/** Goes on after onData() paused the reading. */
export function resumeReplication(replication: Replication): void {
  if (!replication.isPaused) return
  replication.isPaused = false
  replication.socket.resume()
}

/** Says good-bye and closes; harmless after a failure. */
export function closeReplication(replication: Replication): void {
  replication.ended ??= connectionFailure(replication.place, 'it was closed by us')
  if (!replication.socket.destroyed) replication.socket.end(encodeMessage('X', Buffer.alloc(0)))
  replication.socket.destroySoon()
}

/** Reads into one buffer that is used again; the library, while it logs in, is given copies. */
function readingSocket(hands: { take: ((bytes: Buffer) => boolean) | undefined }): Socket {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  const socket: Socket = new Socket({
    onread: {
      buffer,
      callback: (count: number) => {
        const bytes = buffer.subarray(0, count)
        if (hands.take !== undefined) return hands.take(bytes)
        socket.emit('data', Buffer.from(bytes))
        return true
      },
    },
  })
  return socket
}

/** Takes the socket from the library, which hears nothing of it from now on. */
function takeSocket(client: Client): Socket {
  const connection: unknown = Reflect.get(client, 'connection')
  const stream: unknown =
    typeof connection === 'object' && connection !== null && Reflect.get(connection, 'stream')
  if (!(stream instanceof Socket)) throw new Error('Bug: the library pg has no socket where it had one')
  for (const event of ['data', 'end', 'readable', 'error', 'close']) stream.removeAllListeners(event)
  return stream
}

function takeBytes(replication: Replication, bytes: Buffer): void {
  try {
    cutMessages(replication.cutter, bytes)
  } catch (error) {
    endReplication(replication, error)
    replication.socket.destroy()
  }
  if (replication.isPaused) replication.socket.pause()
}

function takeMessage(replication: Replication, type: number, payload: Buffer): void {
  const { command } = replication
  if (command !== undefined && (command.quietLooks !== undefined || type === MESSAGE.copyData))
    command.quietLooks = 0
  if (type === MESSAGE.copyData) {
    if (command?.onData?.(payload) === true) replication.isPaused = true
  } else if (type === MESSAGE.dataRow) {
    command?.onRow?.(decodeRow(payload))
  } else if (type === MESSAGE.copyOut) {
    command?.onCopyOut?.()
  } else if (type === MESSAGE.copyBoth) {
    command?.onCopyBoth?.()
  } else if (type === MESSAGE.copyDone) {
    command?.onCopyDone?.()
  } else if (type === MESSAGE.error) {
    takeError(replication, decodeServerMessage(payload))
  } else if (type === MESSAGE.readyForQuery && command !== undefined) {
    replication.command = undefined
    if (command.error === undefined) command.resolve()
    else command.reject(commandFailure(replication, command.sql, command.error))
  }
}

/** Between commands an error is the server's farewell. */
function takeError(replication: Replication, error: ServerMessage): void {
  if (replication.command !== undefined) replication.command.error = error
  else endReplication(replication, connectionFailure(replication.place, error.message))
}

function endReplication(replication: Replication, error: unknown): void {
  const { command, place } = replication
  replication.command = undefined
  replication.ended ??=
    error instanceof Failure ? error : connectionFailure(place, describeError(error), error)
  const said = command?.error
  command?.reject(said === undefined ? replication.ended : commandFailure(replication, command.sql, said))
}

function commandFailure({ place }: Replication, sql: string, error: ServerMessage): Failure {
  const [verb = ''] = sql.split(/[ (]/)
  const more = [error.detail, error.hint].filter((text) => text !== '').join('; ')
  const is = more === '' ? error.message : `${error.message} (${more})`
  const message = `Cannot run ${verb} on ${shownPlace(place)}: ${is}`
  return new Failure('source.failed', message, { facts: { sqlstate: error.code } })
}

/** A server that speaks just enough of PostgreSQL's protocol to misbehave: its answers are the test's. */
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'

/** What is sent for a command: messages one after another. */
export type Answer = readonly Buffer[]

export interface FakePostgres {
  readonly port: number
  /** Commands that came, of all connections. */
  readonly commands: string[]
  readonly close: () => Promise<void>
}

const READY = message('Z', Buffer.from('I'))

/** Listens on 127.0.0.1; lets everybody in. `answer` gives what is sent before "ready for the next". */
export async function fakePostgres(answer: (command: string) => Answer): Promise<FakePostgres> {
  const commands: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    let isIn = false
    let input = Buffer.alloc(0)
    socket.on('error', () => undefined)
    socket.on('data', (bytes) => {
      input = Buffer.concat([input, Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes)])
      for (;;) {
        const header = isIn ? 1 : 0
        const length = input.length < header + 4 ? Infinity : header + input.readUInt32BE(header)
        if (input.length < length) return
        const kind = isIn ? String.fromCharCode(input[0]!) : 'login'
        const payload = input.subarray(header + 4, length)
        input = input.subarray(length)
        if (kind === 'login') {
          isIn = true
          socket.write(Buffer.concat([message('R', Buffer.alloc(4)), READY]))
        } else if (kind === 'Q') {
          const command = payload.toString('utf8', 0, payload.length - 1)
          commands.push(command)
          const messages = answer(command)
          const isCopy = messages.some((one) => one[0] === 'W'.charCodeAt(0))
          socket.write(Buffer.concat(isCopy ? messages : [...messages, READY]))
        } else if (kind === 'c') {
          socket.write(Buffer.concat([message('c', Buffer.alloc(0)), READY]))
        }
      }
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const close = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  }
  return { port, commands, close }
}

export function message(kind: string, payload: Buffer): Buffer {
  const header = Buffer.alloc(5)
  header[0] = kind.charCodeAt(0)
  header.writeUInt32BE(4 + payload.length, 1)
  return Buffer.concat([header, payload])
}

/** A result of one row. */
export function row(...values: readonly (string | null)[]): Buffer {
  const count = Buffer.alloc(2)
  count.writeUInt16BE(values.length)
  const fields = values.flatMap((value) => {
    const length = Buffer.alloc(4)
    length.writeInt32BE(value === null ? -1 : Buffer.byteLength(value))
    return value === null ? [length] : [length, Buffer.from(value)]
  })
  return message('D', Buffer.concat([count, ...fields]))
}

export function refusal(sqlstate: string, text: string): Buffer {
  return message('E', Buffer.from(`SERROR\0VERROR\0C${sqlstate}\0M${text}\0\0`))
}

/** CopyBothResponse. */
export function copyBoth(): Buffer {
  return message('W', Buffer.alloc(3))
}

/** XLogData. */
export function logData(lsn: bigint, bytes: Buffer): Buffer {
  const header = Buffer.alloc(25)
  header[0] = 'w'.charCodeAt(0)
  header.writeBigUInt64BE(lsn, 1)
  header.writeBigUInt64BE(lsn + BigInt(bytes.length), 9)
  return message('d', Buffer.concat([header, bytes]))
}

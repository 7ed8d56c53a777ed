import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import {
  cutMessages,
  decodeRow,
  decodeServerMessage,
  encodeMessage,
  MESSAGE,
  newMessageCutter,
} from './messages.ts'

const messages = fc.array(
  fc.record({ type: fc.constantFrom('d', 'D', 'Z'), payload: fc.uint8Array({ maxLength: 300 }) }),
  { maxLength: 30 },
)

test('cutMessages() gives back what was encoded, whatever pieces it comes in', () => {
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1 }), (sent, sizes) => {
      const stream = Buffer.concat(sent.map(({ type, payload }) => encodeMessage(type, payload)))
      const got: { type: string; payload: number[] }[] = []
      const cutter = newMessageCutter((type, payload) => {
        got.push({ type: String.fromCharCode(type), payload: [...payload] })
      })
      for (let at = 0, turn = 0; at < stream.length; turn++) {
        const size = sizes[turn % sizes.length]!
        // The socket uses its buffer again.
        const piece = Buffer.from(stream.subarray(at, at + size))
        cutMessages(cutter, piece)
        piece.fill(0xee)
        at += size
      }
      assert.deepEqual(
        got,
        sent.map(({ type, payload }) => ({ type, payload: [...payload] })),
      )
    }),
  )
})

test('a message larger than the cutter has room for comes whole', () => {
  const payload = Buffer.alloc(1_000_000, 7)
  const got: number[] = []
  const cutter = newMessageCutter((_, bytes) => got.push(bytes.length))
  const message = encodeMessage('d', payload)
  for (let at = 0; at < message.length; at += 65_536) cutMessages(cutter, message.subarray(at, at + 65_536))
  assert.deepEqual(got, [payload.length])
})

test('a length that no server sends ends the reading', () => {
  for (const length of [0, 3, 0x7fff_ffff]) {
    const bytes = Buffer.from([MESSAGE.copyData, 0, 0, 0, 0, 0])
    bytes.writeUInt32BE(length, 1)
    const cutter = newMessageCutter(() => assert.fail('this is no message'))
    assert.throws(
      () => cutMessages(cutter, bytes),
      (error) => isFailure(error, 'source.failed'),
    )
  }
})

test('decodeRow() and decodeServerMessage() read what the server writes', () => {
  const row = Buffer.concat([
    Buffer.from([0, 3, 0, 0, 0, 2]),
    Buffer.from('ab'),
    Buffer.from([255, 255, 255, 255, 0, 0, 0, 0]),
  ])
  assert.deepEqual(decodeRow(row), ['ab', null, ''])
  const error = Buffer.from('SFEHLER\0VERROR\0C42P01\0Mrelation "x" does not exist\0Hcreate it\0\0')
  assert.deepEqual(decodeServerMessage(error), {
    severity: 'ERROR',
    code: '42P01',
    message: 'relation "x" does not exist',
    detail: '',
    hint: 'create it',
  })
})

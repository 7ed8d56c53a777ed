/** Log objects written today are read by a reader that was written from docs/format.md alone. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { currentEpoch, domainKeys, epochPrivateKey, requireIdKey } from '../../src/repo/keys.ts'
import { collect, makeLogWorld, mergeTails, newShipper, nextPiece, shipPiece, streamBytes } from '../harness/logs.ts'
import type { LogWorld } from '../harness/logs.ts'
import { openLogObject, type LogReaderKeys } from './log-reader.ts'
import { listLogs } from '../../src/repo/logs.ts'
import { readLog } from '../../src/repo/log-reader.ts'

async function readerKeys({ owner, writer }: LogWorld): Promise<LogReaderKeys> {
  const keys = await domainKeys(owner, writer.domain)
  assert.equal(currentEpoch(keys).epoch, 1)
  return {
    repository: owner.config.repository,
    writer: keys.signingPublic,
    dataPrivate: (epoch) => epochPrivateKey(keys, epoch, 'data'),
    idKey: requireIdKey(keys),
  }
}

test('log objects are read by the independent reader as by ours', async () => {
  const world = await makeLogWorld()
  const keys = await readerKeys(world)
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'tail', { from: 0x16b_3748n, to: 0x16b_4000n })
  await shipPiece(shipper, 'tail', { from: 0x16b_4000n, to: 0x200_0000n })
  await mergeTails(shipper)
  await shipPiece(shipper, 'segment', { from: 0x200_0000n, to: 0x200_0009n })
  await shipPiece(shipper, 'tail', { from: 0x200_0009n, to: 0x200_0009n })
  const [first, second] = shipper.segments.map(({ header }) => header)
  const opened = [...world.disk].filter(([name]) => name.includes('/logs/')).map(([name, { bytes }]) => openLogObject(bytes, name, keys))
  assert.deepEqual(
    opened.map(({ seq, isTail, from, to, notes }) => [seq, isTail, from, to, notes.toString()]),
    [
      [1, false, 0x16b_3748n, 0x200_0000n, 'segment 1'],
      [2, false, 0x200_0000n, 0x200_0009n, 'segment 2'],
      [3, true, 0x200_0009n, 0x200_0009n, 'tail 3'],
    ],
  )
  assert.deepEqual(opened.map(({ previous }) => previous).slice(0, 2), [null, first!.sha256])
  assert.equal(opened[1]!.sha256, second!.sha256)
  for (const { from, to, body } of opened) assert.ok(body.equals(streamBytes(from, to)))
  const { branches } = await listLogs(world.owner)
  const ours = Buffer.concat(await collect(readLog(world.owner, branches[0]!, { from: 0x16b_3748n, to: 0x200_0009n })))
  assert.ok(ours.equals(Buffer.concat(opened.map(({ body }) => body))))
})

test('the independent reader refuses each cut and each flipped byte of a log object', async () => {
  const world = await makeLogWorld()
  const keys = await readerKeys(world)
  const { header, bytes } = nextPiece(newShipper(world.writer), 'segment', { from: 7n, to: 20n })
  const object = Buffer.from(bytes)
  assert.equal(openLogObject(object, header.name, keys).body.length, 13)
  for (let at = 0; at < object.length; at++) {
    assert.throws(() => openLogObject(object.subarray(0, at), header.name, keys), `cut at ${at}`)
    object[at]! ^= 4
    assert.throws(() => openLogObject(object, header.name, keys), `byte ${at}`)
    object[at]! ^= 4
  }
  assert.throws(() => openLogObject(object, header.name.replace(/1$/, '2'), keys), /first line/)
})

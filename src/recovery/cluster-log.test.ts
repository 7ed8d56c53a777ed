import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { putLog } from '../repo/log-writer.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { LOG_BRANCH, makeLogWorld, newShipper, nextPiece, shipPiece } from '../../test/harness/logs.ts'
import { planRecovery } from './cluster-log.ts'

const SEGMENT = 1024 * 1024

test('a recovery is told of every timeline number that is in use, also without a history', async () => {
  const world = await makeLogWorld()
  const { domain } = world.writer
  const branch = (timeline: number): string => LOG_BRANCH.replace(/1$/, String(timeline))
  const range = { from: 0n, to: BigInt(SEGMENT) }
  await shipPiece(newShipper(world.writer), 'segment', range)
  await shipPiece(newShipper(world.writer, { branch: branch(4), shipper: 'ee'.repeat(8) }), 'segment', range)
  const text = '1\t0/80000\tno recovery target specified\n'
  const file = {
    domain,
    source: 'orders',
    branch: branch(2),
    kind: 'file',
    file: '00000002.history',
  } as const
  const history = { place: file, body: Buffer.from(text), previous: null }
  await putLog(world.writer, nextPiece(newShipper(world.writer), 'tail', { from: 0n, to: 0n }, history))
  const log = { branch: LOG_BRANCH, from: '0', to: '100', held: '100' }
  const snapshot = { id: 's1', domain, source: 'orders', counter: 1, log } as unknown as StoredSnapshot
  const wanted = { goal: { kind: 'latest' }, timeline: 1, segmentBytes: SEGMENT } as const
  const plan = await planRecovery(world.owner, snapshot, wanted)
  assert.deepEqual(
    plan?.histories.map((each) => [each.timeline, each.text]),
    [
      [2, text],
      [3, '# in use; its history is not known\n'],
      [4, '# in use; its history is not known\n'],
    ],
  )
})

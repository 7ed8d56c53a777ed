import assert from 'node:assert/strict'
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import {
  assertStored,
  grow,
  listWorld,
  newFakeLog,
  piecesOf,
  SEGMENT,
  startShipping,
  type FakeLog,
} from '../../test/harness/fake-log.ts'
import { LOG_BRANCH, makeLogWorld, type LogWorld } from '../../test/harness/logs.ts'
import { fillDisk, growDisk, mountDisk, unmountDisk } from '../../test/harness/small-disk.ts'
import { isFailure } from '../base/failure.ts'
import { logName } from '../format/log-header.ts'
import { segmentsOf } from '../repo/log-table.ts'

const SEGMENTS = BigInt(SEGMENT)
const NEXT_BRANCH = '7531234567890123456-00000002'
const folders: string[] = []

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

function newLog(from?: bigint): FakeLog {
  const log = newFakeLog(from)
  folders.push(log.folder)
  return log
}

/** One run, a piece for each growth. */
async function shipGrowing(world: LogWorld, log: FakeLog, growths: readonly number[]): Promise<void> {
  const shipping = startShipping(world.access, log)
  for (const bytes of growths) {
    grow(log, bytes)
    await shipping.reached(log.branches.at(-1)!.to)
  }
  await shipping.stop()
}

function stateFile(log: FakeLog): string {
  return join(log.folder, 'shipper.json')
}

test('a new run goes on with the numbers of the one before', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [10, 10])
  await shipGrowing(world, log, [10, SEGMENT])
  await shipGrowing(world, log, [10])
  const { findings, branches } = await assertStored(world, { from: 0n, to: 40n + SEGMENTS })
  assert.deepEqual([findings, branches[0]!.shippers.length], [[], 1])
  assert.deepEqual(piecesOf(world), { segments: 1, tails: 2 })
})

test('a lost state file makes a new shipper that ships all that is held', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [10, SEGMENT])
  rmSync(stateFile(log))
  await shipGrowing(world, log, [10])
  const { findings, branches } = await assertStored(world, { from: 0n, to: 20n + SEGMENTS })
  assert.equal(branches[0]!.shippers.length, 2)
  assert.deepEqual(findings, [])
})

for (const [what, text] of [
  ['cut short', '{"shipper":"0011'],
  ['empty', ''],
  ['of another shape', '{"shipper":"nobody"}'],
] as const) {
  test(`a state file that is ${what} counts as lost`, async () => {
    const world = await makeLogWorld()
    const log = newLog()
    await shipGrowing(world, log, [10])
    writeFileSync(stateFile(log), text)
    await shipGrowing(world, log, [10])
    const { branches } = await assertStored(world, { from: 0n, to: 20n })
    assert.equal(branches[0]!.shippers.length, 2)
  })
}

test('a state file of another source is not taken over', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [10])
  const state = JSON.parse(readFileSync(stateFile(log), 'utf8')) as object
  writeFileSync(stateFile(log), JSON.stringify({ ...state, source: 'others' }))
  await shipGrowing(world, log, [10])
  const { branches } = await assertStored(world, { from: 0n, to: 20n })
  assert.equal(branches[0]!.shippers.length, 2)
})

test('what was put since an old state file is taken over: tails, merged tails, segments', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [10])
  const old = `${stateFile(log)}.old`
  copyFileSync(stateFile(log), old)
  await shipGrowing(world, log, [10, 10, SEGMENT, 10, SEGMENT, 10, 10])
  copyFileSync(old, stateFile(log))
  await shipGrowing(world, log, [10])
  const list = await assertStored(world, { from: 0n, to: 70n + 2n * SEGMENTS })
  assert.deepEqual(list.findings, [])
  assert.equal(list.branches[0]!.shippers.length, 1)
  // The tails that were taken over go with the next segment.
  await shipGrowing(world, log, [SEGMENT])
  assert.deepEqual(piecesOf(world), { segments: 3, tails: 1 })
})

test('a damaged object under the next number begins a new row of numbers, not a new log', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [10, SEGMENT, 10])
  const { shipper } = JSON.parse(readFileSync(stateFile(log), 'utf8')) as { shipper: string }
  const stream = { domain: world.writer.domain, source: 'orders', branch: LOG_BRANCH, shipper }
  await world.store.put(logName({ ...stream, kind: 'segment', seq: 2 }), Buffer.from('torn'))
  await shipGrowing(world, log, [10, SEGMENT])
  const { findings, branches } = await assertStored(world, { from: 0n, to: 30n + 2n * SEGMENTS })
  assert.deepEqual(
    findings.map(({ code }) => code),
    ['log.corrupt'],
  )
  const whole = [...segmentsOf(branches[0]!)].filter(({ place }) => place.kind === 'segment')
  assert.deepEqual(
    whole.map(({ from, to }) => [from, to]),
    [
      [0n, SEGMENTS],
      [SEGMENTS, 2n * SEGMENTS],
    ],
  )
  assert.equal(piecesOf(world).tails, 1, 'tails of the old numbers are deleted too')
})

test('a branch that was left is finished as a segment and released; its file comes first', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, log)
  grow(log, 100)
  await shipping.reached(100n)
  log.branches.push({ branch: NEXT_BRANCH, from: 0n, to: 0n })
  log.files.push({ branch: NEXT_BRANCH, name: '00000002.history', bytes: Buffer.from('1 0/64') })
  grow(log, 300)
  await shipping.until(() =>
    shipping.events.some((event) => event.kind === 'shipped' && event.branch === NEXT_BRANCH),
  )
  await shipping.stop()
  const { files, findings } = await assertStored(world, { from: 0n, to: 100n })
  await assertStored(world, { from: 0n, to: 300n }, NEXT_BRANCH)
  assert.deepEqual([files.length, findings], [1, []])
  assert.deepEqual(piecesOf(world), { segments: 1, tails: 0 })
  assert.deepEqual(
    log.branches.map(({ branch }) => branch),
    [NEXT_BRANCH],
  )
})

test('a branch that was left and not released before a crash is released after it', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [100])
  const left = { ...log.branches[0]! }
  log.branches.push({ branch: NEXT_BRANCH, from: 0n, to: 0n })
  await shipGrowing(world, log, [100])
  log.branches.unshift(left)
  await shipGrowing(world, log, [100])
  assert.equal(log.branches.length, 1)
})

test('a file that another shipper put is not put again; another one of its name is refused', async () => {
  const world = await makeLogWorld()
  const file = { branch: LOG_BRANCH, name: '00000001.history', bytes: Buffer.from('1 0/64') }
  for (const bytes of [10, 20]) {
    const log = newLog()
    log.files.push(file)
    await shipGrowing(world, log, [bytes])
  }
  const log = newLog()
  log.files.push({ ...file, bytes: Buffer.from('1 0/65') })
  const shipping = startShipping(world.access, log)
  grow(log, 30)
  await assert.rejects(shipping.ended, (error) => isFailure(error, 'source.diverged'))
  const { findings } = await listWorld(world)
  assert.deepEqual(findings, [])
})

test('a spool that begins behind the end of what is stored is a gap', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [SEGMENT, 10])
  log.branches[0] = { branch: LOG_BRANCH, from: 2n * SEGMENTS, to: 3n * SEGMENTS }
  const shipping = startShipping(world.access, log)
  await assert.rejects(shipping.ended, (error) => {
    return isFailure(error, 'source.gap') && error.message.includes('1000–2000')
  })
})

test('a spool that ends before what is stored, after a crash, is waited for', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  await shipGrowing(world, log, [100, 100])
  log.branches[0]!.to = 150n
  log.hasNews = true
  const shipping = startShipping(world.access, log, { timing: { idleMs: 1 } })
  await shipping.until(() => shipping.events.length > 10)
  grow(log, 200)
  await shipping.reached(350n)
  await shipping.stop()
  const { findings } = await assertStored(world, { from: 0n, to: 350n })
  assert.deepEqual(findings, [])
})

test('ship() goes on while the disk of the spool is full', async (t) => {
  const world = await makeLogWorld()
  const log = newLog()
  if (!mountDisk(log.folder, '1m')) {
    t.skip('this user may not mount')
    return
  }
  try {
    await shipGrowing(world, log, [10])
    fillDisk(log.folder)
    await shipGrowing(world, log, [10, SEGMENT, 10])
    const { findings } = await assertStored(world, { from: 0n, to: 30n + SEGMENTS })
    assert.deepEqual(findings, [])
    // The numbers of tails that are deleted are known only once the state can be written again.
    assert.equal(piecesOf(world).tails, 4)
    growDisk(log.folder, '2m')
    await shipGrowing(world, log, [10])
    assert.deepEqual(piecesOf(world), { segments: 1, tails: 3 })
    await assertStored(world, { from: 0n, to: 40n + SEGMENTS })
  } finally {
    unmountDisk(log.folder)
  }
})

test('a state file that cannot be written ends the run', async () => {
  const world = await makeLogWorld()
  const log = newLog()
  const shipping = startShipping(world.access, { ...log, folder: join(log.folder, 'gone') })
  await assert.rejects(shipping.ended.then(), (error) => isFailure(error, 'host.file'))
})

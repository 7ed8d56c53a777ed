import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { putLog } from '../repo/log-writer.ts'
import { listLogs } from '../repo/logs.ts'
import {
  LOG_BRANCH,
  logClock,
  makeLogWorld,
  newShipper,
  nextPiece,
  shipPiece,
  type LogWorld,
} from '../../test/harness/logs.ts'
import { checkContinuity } from './check-continuity.ts'
import { newFindings, type Finding } from './check-findings.ts'

const MIB = 1024 * 1024
const DAY_MS = 86_400_000
const span = (from: number, to: number) => ({ from: BigInt(from), to: BigInt(to) })
const second = LOG_BRANCH.replace(/1$/, '2')

interface Ends {
  readonly from: number
  readonly to: number
  readonly held?: number | null
  readonly branch?: string
}

/** What is found of snapshots with these ends, named s1, s2, … */
async function found(world: LogWorld, ends: readonly Ends[], now = logClock.now()): Promise<Finding[]> {
  const findings = newFindings()
  const { domain } = world.writer
  const snapshots = ends.map(({ from, to, held = to, branch = LOG_BRANCH }, at) => ({
    id: `s${at + 1}`,
    domain,
    source: 'orders',
    counter: at + 1,
    log: { branch, from: `${from}`, to: `${to}`, held: held === null ? null : `${held}` },
  }))
  const list = await listLogs(world.owner)
  await checkContinuity({ findings, access: world.owner, list, now }, snapshots)
  return findings.list
}

const rows = (findings: readonly Finding[]) =>
  findings.map(({ code, severity, snapshots }) => `${code} ${severity} ${snapshots.join(' ')}`.trim())

async function putHistory(world: LogWorld, text: string): Promise<string> {
  const shipper = newShipper(world.writer, { branch: second })
  const { domain } = world.writer
  const place = { domain, source: 'orders', branch: second, kind: 'file', file: '00000002.history' } as const
  const sealed = nextPiece(shipper, 'tail', span(0, 0), { place, body: Buffer.from(text), previous: null })
  await putLog(world.writer, sealed)
  return sealed.header.name
}

test('checkContinuity() finds nothing where the log goes on, log.none where there is none', async () => {
  const world = await makeLogWorld()
  assert.deepEqual(rows(await found(world, [{ from: 5, to: 15 }])), ['log.none info s1'])
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'segment', span(0, 20))
  await shipPiece(shipper, 'tail', span(20, 30))
  const ends = [
    { from: 5, to: 15 },
    { from: 18, to: 30 },
    { from: 28, to: 40 },
  ]
  assert.deepEqual(await found(world, ends), [])
  assert.deepEqual(await found(world, []), [])
})

test('checkContinuity() finds log.none where all log is of another cluster', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'segment', span(0, 20))
  const branch = '42-00000001'
  const ends = [
    { from: 5, to: 15 },
    { from: 7, to: 9, branch },
    { from: 8, to: 12, branch },
  ]
  const findings = await found(world, ends)
  assert.deepEqual(rows(findings), ['log.none warning s2 s3'])
  assert.match(findings[0]!.message, /^"orders" is system 42 since s2, and all log of it is of another/)
  await shipPiece(newShipper(world.writer, { branch }), 'segment', span(0, 20))
  assert.deepEqual(await found(world, ends), [])
})

test('checkContinuity() finds log.broken behind a gap, once for the snapshots before it', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'segment', span(0, 20))
  await shipPiece(shipper, 'segment', span(30, 40))
  const ends = [
    { from: 5, to: 15 },
    { from: 15, to: 18 },
    { from: 30, to: 35 },
  ]
  const findings = await found(world, ends)
  assert.deepEqual(rows(findings), ['log.broken error s1 s2'])
  assert.match(findings[0]!.message, /gap from 0\/14 to 0\/1E on timeline 1: nothing behind 0\/14 can be/)
})

test('checkContinuity() tells log that begins behind a snapshot from log that is lost', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'segment', span(48 * MIB, 48 * MIB + 10))
  // A backup holds the file that it ended in.
  assert.deepEqual(await found(world, [{ from: 33 * MIB, to: 34 * MIB, held: 48 * MIB }]), [])
  const early = [
    { from: 5, to: 15 },
    { from: 20, to: 30 },
  ]
  const findings = await found(world, early)
  assert.deepEqual(rows(findings), ['log.broken warning s1 s2'])
  assert.match(findings[0]!.message, /begins at 0\/3000000, behind .* s1, s2: .*: make a new backup$/)
  const withLater = [...early, { from: 33 * MIB, to: 34 * MIB, held: 48 * MIB }]
  assert.deepEqual(rows(await found(world, withLater)), ['log.broken info s1 s2'])
})

test('checkContinuity() finds log.lacking: a snapshot whose own log is not there', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await shipPiece(shipper, 'segment', span(0, 20))
  assert.deepEqual(await found(world, [{ from: 5, to: 15, held: null }]), [])
  const findings = await found(world, [{ from: 15, to: 25, held: null }])
  assert.deepEqual(rows(findings), ['log.lacking error s1'])
  assert.match(findings[0]!.message, /from 0\/14 to 0\/19 .* cannot be restored/)
})

test('checkContinuity() finds log.ended when nothing was shipped for a day', async () => {
  const world = await makeLogWorld()
  await shipPiece(newShipper(world.writer), 'segment', span(0, 20))
  const ends = [{ from: 5, to: 15 }]
  assert.deepEqual(await found(world, ends, logClock.now() + DAY_MS), [])
  assert.deepEqual(rows(await found(world, ends, logClock.now() + DAY_MS + 1)), ['log.ended warning'])
})

test('checkContinuity() follows a timeline to the next, and sees a gap between them', async () => {
  const world = await makeLogWorld()
  const name = await putHistory(world, '1\t0/14\tno recovery target specified\n')
  await shipPiece(newShipper(world.writer), 'segment', span(0, 18))
  const shipper = newShipper(world.writer, { branch: second })
  await shipPiece(shipper, 'segment', span(19, 30))
  const ends = [{ from: 5, to: 15 }]
  assert.deepEqual(rows(await found(world, ends)), ['log.broken error s1'])
  await shipPiece(
    newShipper(world.writer, { branch: second, shipper: 'ee'.repeat(8) }),
    'segment',
    span(16, 20),
  )
  assert.deepEqual(await found(world, ends), [])
  // Who ended behind the switch is on the timeline that was left.
  assert.deepEqual(await found(world, [{ from: 5, to: 18 }]), [])
  const blob = world.disk.get(name)!
  const bytes = Buffer.from(blob.bytes)
  bytes[bytes.length - 1]! ^= 1
  world.disk.set(name, { ...blob, bytes })
  assert.deepEqual(rows(await found(world, ends)), ['log.corrupt error'])
})

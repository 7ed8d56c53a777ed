/** The resolver on notes made by hand; recovery-stops.test.ts compares it with a real server. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure, type FailureCode } from '../../base/failure.ts'
import { mergeNotes, NO_NOTES, type LogNotes, type TransactionNote } from './log-notes.ts'
import { addNames, newNameHistory } from './name-history.ts'
import { formatTime } from './target-words.ts'
import { resolveTarget, type ResolvedTarget, type WantedTarget } from './recovery-target.ts'
import type { NotesPiece, TargetLog } from './target-log.ts'

const BASE = { timeline: 1, start: 1000n, end: 2000n }

/** A commit at `lsn`; each record follows on the one 80 bytes before. */
function commit(lsn: bigint, at: number, more: Partial<TransactionNote> = {}): TransactionNote {
  return {
    kind: 'commit',
    lsn,
    end: lsn + 40n,
    previous: lsn - 80n,
    at: BigInt(at),
    xid: Number(lsn / 80n),
    isPrepared: false,
    subtransactions: [],
    isThinned: false,
    ...more,
  }
}

interface PieceOptions extends Partial<LogNotes> {
  readonly from: bigint
  readonly to: bigint
  readonly timeline?: number
  /** Clock of the server when it had sent all up to `to`. */
  readonly mark?: number
}

/** Records every 80 bytes from `from` to `to`. */
function piece({ from, to, timeline = 1, mark, ...lists }: PieceOptions): NotesPiece {
  const span = { first: from, previous: from - 80n, last: to - 80n, end: to }
  const marks = mark === undefined ? [] : [{ lsn: to, serverTime: BigInt(mark), receivedAt: 0 }]
  return { timeline, from, to, notes: { ...NO_NOTES, span, marks, ...lists } }
}

function logOf(pieces: readonly NotesPiece[], more: Partial<TargetLog> = {}): TargetLog {
  return { base: BASE, timeline: 1, history: [], pieces, ...more }
}

const PLAIN = [
  piece({ from: 960n, to: 2000n, ends: [commit(1040n, 100)], mark: 150 }),
  piece({ from: 2000n, to: 4000n, ends: [commit(2080n, 200), commit(3120n, 300)], mark: 350 }),
  piece({ from: 4000n, to: 8000n, ends: [commit(4080n, 400), commit(5120n, 500)], mark: 900 }),
]

async function stop(log: TargetLog, wanted: WantedTarget): Promise<[bigint, boolean, number]> {
  const { lsn, isInclusive, lost } = await resolveTarget(log, wanted)
  return [lsn, isInclusive, lost.count]
}

async function refuse(
  log: TargetLog,
  wanted: WantedTarget,
  { code = 'restore.refused', says }: { code?: FailureCode; says: RegExp },
): Promise<void> {
  await assert.rejects(resolveTarget(log, wanted), (error: unknown) => {
    assert.ok(isFailure(error, code), String(error))
    assert.match(error.message, says)
    return true
  })
}

const time = (at: number, isInclusive = true): WantedTarget => ({ kind: 'time', at: BigInt(at), isInclusive })

test('a time stops before the first transaction that is later', async () => {
  const log = logOf(PLAIN)
  assert.deepEqual(await stop(log, time(299)), [3120n, false, 3])
  assert.deepEqual(await stop(log, time(300)), [4080n, false, 2])
  assert.deepEqual(await stop(log, time(300, false)), [3120n, false, 3])
  assert.deepEqual(await stop(log, time(399)), [4080n, false, 2])
  const { kept, alternatives } = await resolveTarget(log, time(350))
  assert.deepEqual([kept?.lsn, kept?.at], [3120n, 300n])
  assert.deepEqual(
    alternatives.map(({ lsn }) => lsn),
    [3120n, 4080n],
  )
})

test('a time behind the last commit is fine until the last mark, and refused beyond', async () => {
  const log = logOf(PLAIN)
  assert.deepEqual(await stop(log, time(700)), [7920n, true, 0])
  assert.deepEqual(await stop(log, time(900)), [7920n, true, 0])
  await refuse(log, time(901), { says: /complete until 1970-01-01T00:00:00\.000900Z.*end of log/ })
  const unmarked = logOf(PLAIN.map((each) => ({ ...each, notes: { ...each.notes, marks: [] } })))
  assert.deepEqual(await stop(unmarked, time(500)), [7920n, true, 0], 'the moment of the last commit')
  await refuse(unmarked, time(501), { says: /complete until 1970-01-01T00:00:00\.000500Z/ })
  const late = logOf([...PLAIN, piece({ from: 8000n, to: 9000n, ends: [commit(8080n, 950)] })])
  assert.deepEqual(await stop(late, time(950)), [8920n, true, 0], 'a commit behind the last mark')
  await assert.rejects(resolveTarget(late, time(951)), (error: unknown) => {
    assert.ok(isFailure(error, 'restore.refused'))
    assert.match(error.message, /complete until 1970-01-01T00:00:00\.000950Z.*end of log .*000950Z/)
    assert.equal(error.facts['coveredUntil'], '1970-01-01T00:00:00.000950Z')
    assert.match(String(error.facts['hint']), /^Leave the time away for the end of the log/)
    return true
  })
  await refuse(logOf([piece({ from: 960n, to: 8000n })]), time(700), { says: /unknown time/ })
})

test('a time before what the base holds is refused, as the server would', async () => {
  await refuse(logOf(PLAIN), time(99), { says: /can be recovered from 0\/7D0 on/ })
})

test('a clock that went back: the server stops at the first later one, and the result says so', async () => {
  const ends = [commit(2080n, 500), commit(3120n, 200), commit(3200n, 300)]
  const log = logOf([PLAIN[0]!, piece({ from: 2000n, to: 8000n, ends, mark: 900 })])
  const found = await resolveTarget(log, time(400))
  assert.deepEqual([found.lsn, found.isInclusive, found.kept?.at], [2080n, false, 100n])
  assert.deepEqual(found.clock, { stepBack: 300n, steppedAt: 3120n, lostEarlier: 2 })
  const aborted = [commit(2080n, 500, { kind: 'abort' }), commit(3120n, 200)]
  const other = logOf([PLAIN[0]!, piece({ from: 2000n, to: 8000n, ends: aborted, mark: 900 })])
  assert.deepEqual(await stop(other, time(400)), [2080n, false, 1])
})

test('a position is kept as it is, unless no record begins behind it', async () => {
  const log = logOf(PLAIN)
  assert.deepEqual(await stop(log, { kind: 'lsn', lsn: 3120n, isInclusive: true }), [3120n, true, 2])
  assert.deepEqual(await stop(log, { kind: 'lsn', lsn: 3120n, isInclusive: false }), [3120n, false, 3])
  // Inclusive, the record after the position is replayed too.
  assert.deepEqual(await stop(log, { kind: 'lsn', lsn: 3100n, isInclusive: true }), [3100n, true, 2])
  assert.deepEqual(await stop(log, { kind: 'lsn', lsn: 3100n, isInclusive: false }), [3100n, false, 3])
  assert.deepEqual(await stop(log, { kind: 'lsn', lsn: 8000n, isInclusive: false }), [7920n, true, 0])
  await refuse(log, { kind: 'lsn', lsn: 8001n, isInclusive: true }, { says: /the log ends at 0\/1F40/ })
  await refuse(log, { kind: 'lsn', lsn: 1999n, isInclusive: true }, { says: /recovered from 0\/7D0/ })
})

test('latest, and immediate with and without the record of the end of the backup', async () => {
  assert.deepEqual(await stop(logOf(PLAIN), { kind: 'latest' }), [7920n, true, 0])
  assert.deepEqual(await stop(logOf(PLAIN), { kind: 'immediate' }), [2000n, false, 4])
  const backupEnds = [{ lsn: 1960n, end: 2000n, start: 1000n }]
  const log = logOf([{ ...PLAIN[0]!, notes: { ...PLAIN[0]!.notes, backupEnds } }, ...PLAIN.slice(1)])
  const found = await resolveTarget(log, { kind: 'immediate' })
  assert.deepEqual([found.lsn, found.isInclusive, found.kept?.lsn, found.lost.count], [1960n, true, 1040n, 4])
  await refuse(logOf([piece({ from: 960n, to: 1920n })]), { kind: 'latest' }, { says: /before the base/ })
})

test('a restore point: the first one of its name behind the base', async () => {
  const points = [1500n, 2160n, 2240n, 6000n].map((lsn) => ({ lsn, at: 1n, name: 'sale' }))
  const log = logOf([piece({ from: 960n, to: 8000n, points })])
  const found = await resolveTarget(log, { kind: 'name', name: 'sale' })
  assert.deepEqual([found.lsn, found.isInclusive], [2160n, true])
  assert.deepEqual(
    found.alternatives.map(({ lsn }) => lsn),
    [2240n, 6000n],
  )
  await refuse(log, { kind: 'name', name: 'other' }, { says: /has none \(nearest: .*"sale" at 0\/1770/ })
})

test('a transaction: by its own number, that of a savepoint, committed or aborted', async () => {
  const ends = [
    commit(2080n, 200, { xid: 70, subtransactions: [{ first: 71, count: 2 }] }),
    commit(3120n, 300, { xid: 80, kind: 'abort' }),
    commit(4080n, 400, { xid: 90, isPrepared: true }),
    commit(5120n, 500, { xid: 95, subtransactions: [{ first: 96, count: 900 }], isThinned: true }),
  ]
  const log = logOf([
    piece({ from: 160n, to: 960n, ends: [commit(400n, 50, { xid: 60 })] }),
    PLAIN[0]!,
    piece({ from: 2000n, to: 8000n, ends }),
  ])
  const xid = (number: number, isInclusive = true): WantedTarget => ({
    kind: 'xid',
    xid: number,
    isInclusive,
  })
  assert.deepEqual(await stop(log, xid(72)), [2080n, true, 2])
  assert.deepEqual(await stop(log, xid(72, false)), [2080n, false, 3])
  assert.deepEqual(await stop(log, xid(80)), [3120n, true, 2])
  assert.deepEqual(await stop(log, xid(90)), [4080n, true, 1])
  assert.deepEqual(await stop(log, xid(95)), [5120n, true, 0])
  await refuse(log, xid(100), { says: /savepoints of 95/ })
  await refuse(log, xid(60), { says: /before this base/ })
  await refuse(log, xid(13), { says: /this base can be recovered from/ })
  await refuse(log, xid(5000), { says: /has none/ })
})

test('before a drop: the newest of that name, by what the files were called then', async () => {
  const files = (relation: number): { tablespace: number; database: number; relation: number } => ({
    tablespace: 1663,
    database: 5,
    relation,
  })
  const note = (lsn: bigint, relation: number, name: string): LogNotes['names'][number] => ({
    lsn,
    files: files(relation),
    schema: 'public',
    name,
  })
  const drop = (lsn: bigint, relation: number): LogNotes['drops'][number] => ({
    lsn,
    at: 1n,
    xid: 1,
    files: files(relation),
  })
  const names = newNameHistory()
  addNames(names, [note(10n, 20_000, 'orders'), note(10n, 20_001, 'items')])
  addNames(names, [
    { lsn: 1n, files: { tablespace: 0, database: 5, relation: 0 }, schema: '', name: 'shop' },
    { lsn: 1n, files: { tablespace: 0, database: 6, relation: 0 }, schema: '', name: 'side' },
  ])
  const log = logOf([
    PLAIN[0]!,
    piece({
      from: 2000n,
      to: 4000n,
      ends: [commit(2080n, 200), commit(3120n, 300)],
      drops: [drop(2080n, 20_000), drop(3120n, 20_001)],
      names: [note(2500n, 20_002, 'orders'), note(3500n, 20_003, 'later')],
    }),
    piece({
      from: 4000n,
      to: 8000n,
      ends: [commit(4080n, 400), commit(5120n, 500), commit(6080n, 600)],
      drops: [
        drop(4080n, 20_009),
        drop(5120n, 20_002),
        { lsn: 5600n, at: 1n, xid: 1, files: { tablespace: 0, database: 6, relation: 0 } },
      ],
    }),
  ])
  const before = (name: string): WantedTarget => ({ kind: 'drop', name })
  const of = async (name: string): Promise<ResolvedTarget> => resolveTarget(log, before(name), new Map(names))
  for (const name of ['orders', 'public.orders', 'shop.public.orders']) {
    const found = await of(name)
    assert.deepEqual(
      [found.lsn, found.isInclusive, found.kept?.lsn, found.lost.count],
      [5120n, false, 4080n, 2],
      name,
    )
  }
  assert.deepEqual([(await of('items')).lsn, (await of('items')).lost.count], [3120n, 4])
  assert.equal((await of('side')).lsn, 5600n)
  await assert.rejects(of('other.public.orders'), /has none/)
  await assert.rejects(of('later'), /has none.*public\.items/)
})

test('a gap is refused with its positions, unless the target lies before it', async () => {
  const holed = logOf([PLAIN[0]!, PLAIN[1]!, { ...PLAIN[2]!, from: 4400n }])
  const gap = { code: 'source.gap', says: /missing, .*from 0\/FA0 to 0\/1130/ } as const
  assert.deepEqual(await stop(holed, time(250)), [3120n, false, 3])
  await refuse(holed, time(350), gap)
  await refuse(holed, { kind: 'latest' }, gap)
  await refuse(holed, { kind: 'lsn', lsn: 5000n, isInclusive: true }, gap)
  const late = logOf(PLAIN.slice(1))
  await refuse(late, time(250), { code: 'source.gap', says: /missing, .*from 0\/3E8 to 0\/7D0/ })
  // The positions are all there, but notes of a record in between are not.
  const span = { first: 4160n, previous: 4080n, last: 7920n, end: 8000n }
  const unnoted = logOf([PLAIN[0]!, PLAIN[1]!, { ...PLAIN[2]!, notes: { ...PLAIN[2]!.notes, span } }])
  await refuse(unnoted, { kind: 'latest' }, { code: 'source.gap', says: /missing, .*from 0\/FA0 to 0\/1040/ })
})

test('log that could not be read is a gap behind what was noted of it', async () => {
  const unread = { ...PLAIN[1]!, notes: { ...PLAIN[1]!.notes, isUnread: true } }
  for (const pieces of [
    [PLAIN[0]!, unread, PLAIN[2]!],
    [PLAIN[0]!, unread],
  ]) {
    assert.equal((await resolveTarget(logOf(pieces), time(250))).lsn, 3120n)
    for (const wanted of [time(340), { kind: 'latest' } as const, { kind: 'drop', name: 'orders' } as const])
      await refuse(logOf(pieces), wanted, { code: 'source.gap', says: /could not be read, from 0\/FA0/ })
  }
})

test('mergeNotes() keeps a break in the chain visible', async () => {
  const [, second, third] = PLAIN
  const late = { ...third!.notes, span: { first: 4160n, previous: 4080n, last: 7920n, end: 8000n } }
  const merged = { timeline: 1, from: 2000n, to: 8000n, notes: mergeNotes([second!.notes, late]) }
  await refuse(logOf([PLAIN[0]!, merged]), { kind: 'latest' }, { code: 'source.gap', says: /missing/ })
  const sound = { ...merged, notes: mergeNotes([second!.notes, third!.notes]) }
  assert.deepEqual(await stop(logOf([PLAIN[0]!, sound]), { kind: 'latest' }), [7920n, true, 0])
})

test('across a timeline switch only what belongs to the history counts', async () => {
  const history = [{ timeline: 1, end: 4000n, reason: '' }]
  const old = piece({ from: 2000n, to: 6000n, ends: [commit(3120n, 300), commit(4080n, 340)], mark: 5000 })
  const after = piece({
    timeline: 2,
    from: 3040n,
    to: 8000n,
    ends: [commit(3120n, 300), commit(4400n, 600), commit(5200n, 700)],
    mark: 900,
  })
  const log = logOf([PLAIN[0]!, old, after], { timeline: 2, history })
  const switched = await resolveTarget(log, time(350))
  assert.deepEqual(
    [switched.lsn, switched.timeline, switched.kept?.at, switched.lost.count],
    [4400n, 2, 300n, 2],
  )
  assert.equal((await resolveTarget(log, time(299))).timeline, 1)
  assert.deepEqual(await stop(log, { kind: 'latest' }), [7920n, true, 0])
  // Marks of the old server say nothing of what came after the switch.
  await refuse(log, time(901), { says: /complete until/ })
  const foreign = logOf([], { timeline: 2, history: [{ timeline: 1, end: 1500n, reason: '' }] })
  await refuse(foreign, { kind: 'latest' }, { says: /not on its history/ })
})

test('pieces of several shippers may overlap', async () => {
  const twice = PLAIN.flatMap((each) => [each, each])
  assert.deepEqual(await stop(logOf(twice), time(250)), [3120n, false, 3])
})

/** A record as a recovery sees it. */
interface Replayed {
  readonly kind: 'commit' | 'abort' | 'point' | 'other'
  readonly lsn: bigint
  readonly at: number
  readonly xid: number
}

/** Which records of `log` xlogrecovery.c replays: their count, or why it fails. */
function replay(
  log: readonly Replayed[],
  baseEnd: bigint,
  target: WantedTarget,
): number | 'too early' | 'not reached' {
  const isEnd = ({ kind }: Replayed): boolean => kind === 'commit' || kind === 'abort'
  const stopsBefore = (record: Replayed): boolean => {
    if (target.kind === 'lsn') return !target.isInclusive && record.lsn >= target.lsn
    if (!isEnd(record)) return false
    if (target.kind === 'xid') return !target.isInclusive && record.xid === target.xid
    if (target.kind !== 'time') return false
    return target.isInclusive ? record.at > Number(target.at) : record.at >= Number(target.at)
  }
  const stopsAfter = (record: Replayed): boolean => {
    if (target.kind === 'lsn') return target.isInclusive && record.lsn >= target.lsn
    if (target.kind === 'name') return record.kind === 'point' && target.name === `point ${record.xid}`
    return target.kind === 'xid' && target.isInclusive && isEnd(record) && record.xid === target.xid
  }
  const judge = (count: number): number | 'too early' =>
    log[count - 1]!.lsn + 80n < baseEnd ? 'too early' : count
  for (const [nth, record] of log.entries()) {
    if (stopsBefore(record)) return nth === 0 ? 'too early' : judge(nth)
    if (stopsAfter(record)) return judge(nth + 1)
  }
  return 'not reached'
}

const wantedTarget: fc.Arbitrary<WantedTarget> = fc.oneof(
  fc.record({
    kind: fc.constant('time' as const),
    at: fc.bigInt({ min: 0n, max: 60n }),
    isInclusive: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('xid' as const), xid: fc.nat({ max: 30 }), isInclusive: fc.boolean() }),
  fc.record({
    kind: fc.constant('lsn' as const),
    lsn: fc.bigInt({ min: 900n, max: 4000n }),
    isInclusive: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('name' as const), name: fc.nat({ max: 30 }).map((nth) => `point ${nth}`) }),
)

test('for any log the server stops where it would have with a target of its own', async () => {
  const kind = fc.constantFrom('commit' as const, 'abort' as const, 'point' as const, 'other' as const)
  const records = fc.array(fc.record({ kind, at: fc.nat({ max: 60 }) }), { minLength: 4, maxLength: 30 })
  const cuts = fc.array(fc.nat({ max: 30 }), { maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(records, fc.nat({ max: 3 }), cuts, wantedTarget, async (made, baseAt, at, wanted) => {
      const log = made.map((each, nth) => ({ ...each, lsn: 1040n + BigInt(nth) * 80n, xid: nth }))
      // The record that ends a backup is no restore point.
      if (log[baseAt]!.kind === 'point') log[baseAt]!.kind = 'other'
      const bounds = [0, ...at.filter((cut) => cut < log.length), log.length].toSorted((a, b) => a - b)
      const pieces = bounds.slice(1).flatMap((to, nth) => {
        const part = log.slice(bounds[nth], to)
        if (part.length === 0) return []
        const ends = part.flatMap((each) =>
          each.kind === 'commit' || each.kind === 'abort'
            ? [commit(each.lsn, each.at, { kind: each.kind, xid: each.xid, end: each.lsn + 80n })]
            : [],
        )
        const points = part.flatMap((each) =>
          each.kind === 'point' ? [{ lsn: each.lsn, at: 0n, name: `point ${each.xid}` }] : [],
        )
        return [piece({ from: part[0]!.lsn, to: part.at(-1)!.lsn + 80n, ends, points })]
      })
      const base = { timeline: 1, start: 1040n, end: log[baseAt]!.lsn + 80n }
      const own = replay(log, base.end, wanted)
      const found = await resolveTarget(logOf(pieces, { base }), wanted).catch((error: unknown) => {
        assert.ok(isFailure(error, 'restore.refused'), String(error))
        return undefined
      })
      if (found === undefined) {
        // A position within the base is refused, though the server may stop behind it.
        if (wanted.kind !== 'lsn' || wanted.lsn >= base.end) assert.equal(typeof own, 'string')
        return
      }
      const count = replay(log, base.end, { ...found, kind: 'lsn' })
      const commits = log.filter((each) => each.kind === 'commit')
      // Nothing tells the server that the log is complete until the time of its last commit.
      const isLast = wanted.kind === 'time' && commits.at(-1)?.at === Number(wanted.at)
      const isAtEnd = (wanted.kind === 'lsn' || isLast) && own === 'not reached'
      assert.equal(count, isAtEnd ? log.length : own)
      const kept = commits.filter((each) => log.indexOf(each) < Number(count))
      assert.equal(found.kept?.xid, kept.at(-1)?.xid)
      assert.equal(found.lost.count, commits.length - kept.length)
    }),
    { numRuns: 3000 },
  )
})

test('formatTime() writes microseconds, also before 1970', () => {
  assert.equal(formatTime(1_790_000_000_123_456n), '2026-09-21T14:13:20.123456Z')
  assert.equal(formatTime(-1n), '1969-12-31T23:59:59.999999Z')
})

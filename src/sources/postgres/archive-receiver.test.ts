/** Taking log from an inbox into a spool: what is taken, waited for, refused, and when a file goes. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { fakeClock } from '../../../test/harness/cli-world.ts'
import { withSpool } from '../../../test/harness/receive-log.ts'
import { isFailure, type FailureCode } from '../../base/failure.ts'
import type { LogFeedState } from '../log-source.ts'
import { makeInbox } from './archive-inbox.ts'
import { receiveArchive, type ArchiveTiming } from './archive-receiver.ts'
import { segmentName, type Lsn } from './lsn.ts'
import { appendSpool } from './spool-append.ts'
import { readHistory, readSpool, releaseSpool, spoolRanges, spoolShortage, type Spool } from './spool.ts'

const SEGMENT_BYTES = 1 << 20
const SEGMENT = BigInt(SEGMENT_BYTES)
const PAGE_BYTES = 8192
const SYSTEM = 7_000_000_000_000_000_001n
/** Timeline 1 was left in the middle of segment 3. */
const HISTORY = '1\t0/350000\tgone\n'
let folder: string
let inbox: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backstock-spool-'))
  const spool = join(folder, 'repository', 'orders')
  mkdirSync(spool, { recursive: true })
  inbox = makeInbox(spool, 8)
  folder = spool
})
afterEach(() => rmSync(join(folder, '..', '..'), { recursive: true }))

interface SegmentOf {
  readonly timeline?: number
  readonly systemId?: bigint
  readonly fill?: number
}

/** Pages as a server writes them, with something that is no record between. */
function segment(number: number, { timeline = 1, systemId = SYSTEM, fill = number }: SegmentOf = {}): Buffer {
  const bytes = Buffer.alloc(SEGMENT_BYTES, fill)
  for (let page = 0; page < SEGMENT_BYTES; page += PAGE_BYTES) {
    bytes.fill(0, page, page + 40)
    bytes.writeUInt16LE(0xd110, page)
    bytes.writeUInt16LE(page === 0 ? 2 : 0, page + 2)
    bytes.writeUInt32LE(timeline, page + 4)
    bytes.writeBigUInt64LE(BigInt(number) * SEGMENT + BigInt(page), page + 8)
  }
  bytes.writeBigUInt64LE(systemId, 24)
  bytes.writeUInt32LE(SEGMENT_BYTES, 32)
  bytes.writeUInt32LE(PAGE_BYTES, 36)
  return bytes
}

function nameOf(number: number, timeline = 1): string {
  return segmentName(timeline, BigInt(number) * SEGMENT, SEGMENT_BYTES)
}

function put(number: number, of: SegmentOf = {}): void {
  writeFileSync(join(inbox, nameOf(number, of.timeline)), segment(number, of))
}

function held(): string[] {
  return readdirSync(inbox).filter((name) => name !== '.backstock')
}

interface Taking {
  readonly states: LogFeedState[]
  readonly clock: ReturnType<typeof fakeClock>
  /** Resolves when it holds after an event; rejects with what the taking failed with. */
  readonly until: (is: () => boolean) => Promise<void>
  /** Lets it go on until nothing is left to take. */
  readonly settle: () => Promise<void>
}

/** Takes from the inbox while `body` runs. */
async function whileTaking(
  body: (spool: Spool, taking: Taking) => Promise<void>,
  { bytesMax = 1 << 30, timing = {} }: { bytesMax?: number; timing?: Partial<ArchiveTiming> } = {},
): Promise<void> {
  await withSpool(
    folder,
    async (spool) => {
      const end = new AbortController()
      const states: LogFeedState[] = []
      const waiting = new Set<() => void>()
      const wake = (): void => {
        for (const call of waiting) call()
      }
      const clock = fakeClock()
      const events = {
        onMore: wake,
        onState: (state: LogFeedState) => {
          states.push(state)
          wake()
        },
      }
      const settings = { clock, signal: end.signal, timing: { rescanMs: 5, ...timing } }
      const running = receiveArchive(spool, settings, events)
      running.catch(() => undefined)
      const until = async (is: () => boolean): Promise<void> => {
        const looks = setInterval(wake, 5)
        const { promise, resolve } = Promise.withResolvers<void>()
        const look = (): void => {
          if (is()) resolve()
        }
        waiting.add(look)
        look()
        const early = running.then(() => assert.fail('it ended'))
        await Promise.race([promise, early]).finally(() => {
          clearInterval(looks)
          waiting.delete(look)
        })
        early.catch(() => undefined)
      }
      try {
        await body(spool, { states, clock, until, settle: () => until(() => held().length === 0) })
      } finally {
        end.abort()
      }
      await running
    },
    { bytesMax },
  )
}

async function failsWith(code: FailureCode, pattern: RegExp, prepare: (spool: Spool) => void): Promise<void> {
  const failing = whileTaking(async (spool, { until }) => {
    prepare(spool)
    await until(() => false)
  })
  await assert.rejects(failing, (error) => isFailure(error, code) && pattern.test(error.message))
}

function heldBytes(spool: Spool, timeline: number, from: Lsn, to: Lsn): Buffer {
  return readSpool(spool, { timeline, from, to })
}

test(
  'receiveArchive() takes segments in the order of the log, however they come',
  { timeout: 20_000 },
  async () => {
    put(1)
    await whileTaking(async (spool, { settle, states }) => {
      await settle()
      put(3)
      writeFileSync(join(inbox, `${nameOf(2)}.00000028.backup`), 'START WAL LOCATION')
      put(2)
      await settle()
      put(2)
      await settle()
      assert.deepEqual(spoolRanges(spool), [{ timeline: 1, from: SEGMENT, to: 4n * SEGMENT }])
      const all = Buffer.concat([segment(1), segment(2), segment(3)])
      assert.ok(heldBytes(spool, 1, SEGMENT, 4n * SEGMENT).equals(all))
      assert.deepEqual(states, [{ kind: 'connected', from: `the first file in "${inbox}"` }])
    })
  },
)

test('receiveArchive() goes on where it was stopped', { timeout: 20_000 }, async () => {
  put(1)
  await whileTaking((_, { settle }) => settle())
  put(2)
  await whileTaking(async (spool, { settle, states }) => {
    // Its records do not say that it is whole.
    assert.equal(spool.logs[0]!.received, 2n * SEGMENT)
    await settle()
    assert.deepEqual(spoolRanges(spool), [{ timeline: 1, from: SEGMENT, to: 3n * SEGMENT }])
    assert.match(JSON.stringify(states[0]), /"connected","from":"0\/[0-9A-F]+ on timeline 1"/)
  })
})

test('receiveArchive() doubts the end of log that did not come in files', { timeout: 20_000 }, async () => {
  put(1)
  await whileTaking((_, { settle }) => settle())
  // As received from the server itself, and cut by a power cut: its second half is zeros.
  const torn = segment(2).fill(0, SEGMENT_BYTES / 2)
  await withSpool(folder, (spool) => appendSpool(spool, { timeline: 1, lsn: 2n * SEGMENT }, torn))
  put(3)
  await whileTaking(async (spool, { settle, states, until, clock }) => {
    await until(() => {
      clock.advance(1000)
      return states.at(-1)?.kind === 'gap'
    })
    assert.match(JSON.stringify(states.at(-1)), new RegExp(`has no ."${nameOf(2)}`))
    put(2)
    await settle()
    assert.ok(heldBytes(spool, 1, 2n * SEGMENT, 3n * SEGMENT).equals(segment(2)))
  })
})

test('receiveArchive() keeps a file of log that was never stored', { timeout: 20_000 }, async () => {
  const begin = 5
  for (const number of [begin, 6, 7]) put(number, { timeline: 2 })
  const strange = [nameOf(begin - 1, 2), nameOf(begin - 1), `${nameOf(begin - 1)}.partial`]
  const refusedNames = (states: readonly LogFeedState[]): string[] =>
    states.flatMap((state) =>
      state.kind === 'refused' ? /[0-9A-F]{24}(.partial)?/.exec(state.reason)![0] : [],
    )
  for (const isReleased of [false, true]) {
    await whileTaking(async (spool, { states, until }) => {
      await until(() => spoolRanges(spool)[0]?.to === 8n * SEGMENT)
      if (isReleased) releaseSpool(spool, { timeline: 2, lsn: 7n * SEGMENT })
      // What was held and is gone was stored, so that it goes.
      put(begin, { timeline: 2 })
      put(begin - 1, { timeline: 2 })
      put(begin - 1)
      writeFileSync(join(inbox, `${nameOf(begin - 1)}.partial`), segment(begin - 1))
      await until(() => refusedNames(states).length === 3 && held().length === 3)
      assert.deepEqual(refusedNames(states).toSorted(), strange.toSorted())
      assert.deepEqual(held().toSorted(), strange.toSorted())
      assert.match(JSON.stringify(states), /begins at 0\/500000 on timeline 2/)
      assert.match(JSON.stringify(states), /has nothing on timeline 1/)
    })
  }
})

test(
  'receiveArchive() says what is missing, waits for it, and ends with source.gap',
  { timeout: 20_000 },
  async () => {
    put(1)
    const late = whileTaking(async (spool, { settle, states, until, clock }) => {
      await settle()
      put(3)
      await until(() => held().length === 1)
      const gaps = (): LogFeedState[] => states.filter(({ kind }) => kind === 'gap')
      await until(() => {
        clock.advance(1000)
        return gaps().length > 0
      })
      assert.match(JSON.stringify(gaps()), new RegExp(`has no ."${nameOf(2)}.+ but ."${nameOf(3)}`))
      put(2)
      await settle()
      assert.equal(spoolRanges(spool)[0]?.to, 4n * SEGMENT)
      put(5)
      await until(() => {
        clock.advance(60_000)
        return false
      })
    })
    await assert.rejects(late, (error) => isFailure(error, 'source.gap') && error.message.includes(nameOf(4)))
    assert.deepEqual(held(), [nameOf(5)])
  },
)

test('receiveArchive() refuses log of another system, and what is no log', { timeout: 20_000 }, async () => {
  put(1)
  await whileTaking((_, { settle }) => settle())
  const cases: [FailureCode, RegExp, () => void][] = [
    ['source.foreign', /is for the system 7000000000000000001/, () => put(2, { systemId: 9n })],
    ['source.diverged', /differs from what was received before/, () => put(1, { fill: 7 })],
    ['source.diverged', /its page for 0\/200000 says 0\/500000/, () => write(2, segment(5))],
    ['source.diverged', /is of timeline 9/, () => write(2, segment(2, { timeline: 9 }))],
    ['source.diverged', /it has 8192 bytes/, () => write(2, segment(2).subarray(0, 8192))],
    ['source.diverged', /it has no log before 0\/204000, and goes on/, () => write(2, withHole())],
    ['host.file', /ELOOP/, () => symlinkSync('/etc/passwd', join(inbox, nameOf(2)))],
    ['source.failed', /it is no file/, () => mkdirSync(join(inbox, nameOf(2)))],
    [
      'source.failed',
      /is no timeline that comes after/,
      () => writeFileSync(join(inbox, '00000002.history'), 'x'),
    ],
  ]
  for (const [code, message, prepare] of cases) {
    await failsWith(code, message, prepare)
    assert.equal(held().length, 1, 'what is refused stays')
    rmSync(join(inbox, held()[0]!), { recursive: true })
  }
})

function write(number: number, bytes: Buffer): void {
  writeFileSync(join(inbox, nameOf(number)), bytes)
}

/** Its second page was never written, the third was. */
function withHole(): Buffer {
  return segment(2).fill(0, PAGE_BYTES, 2 * PAGE_BYTES)
}

test('receiveArchive() waits while the spool is full', { timeout: 20_000 }, async () => {
  for (const number of [1, 2, 3, 4]) put(number)
  const bytesMax = 3 * SEGMENT_BYTES
  await whileTaking(
    async (spool, { states, until, settle }) => {
      await until(() => states.at(-1)?.kind === 'stalled')
      assert.deepEqual(held(), [nameOf(4)])
      releaseSpool(spool, { timeline: 1, lsn: 3n * SEGMENT })
      await settle()
      assert.deepEqual(spoolRanges(spool), [{ timeline: 1, from: 3n * SEGMENT, to: 5n * SEGMENT }])
      assert.deepEqual(
        states.map(({ kind }) => kind),
        ['connected', 'stalled', 'connected'],
      )
    },
    { bytesMax },
  )
})

test(
  'receiveArchive() says once that a spool has no room for the next file',
  { timeout: 20_000 },
  async (t) => {
    for (const number of [1, 2, 3, 4]) put(number)
    await whileTaking(
      async (spool, { states, until, settle }) => {
        const pauses = t.mock.method(spool.onRoom, 'add').mock
        await until(() => states.at(-1)?.kind === 'stalled' && pauses.callCount() > 5)
        assert.equal(spoolShortage(spool), undefined, 'there is room, but for less than a file')
        releaseSpool(spool, { timeline: 1, lsn: 3n * SEGMENT })
        await settle()
        const kinds = states.map(({ kind }) => kind)
        assert.deepEqual(kinds, ['connected', 'stalled', 'connected'])
      },
      { bytesMax: 3.5 * SEGMENT_BYTES },
    )
  },
)

test(
  'receiveArchive() ends when it has refused too many files to know them all',
  { timeout: 20_000 },
  async () => {
    put(1, { timeline: 2 })
    await whileTaking((_, { settle }) => settle())
    const names = Array.from({ length: 1000 }, (_, number) => `notes-${number}`)
    for (const name of names) writeFileSync(join(inbox, name), '')
    const refusedCount = (states: readonly LogFeedState[]): number =>
      states.filter(({ kind }) => kind === 'refused').length
    await whileTaking(async (spool, { states, until }) => {
      await until(() => refusedCount(states) === 1000)
      for (const name of names) rmSync(join(inbox, name))
      put(2, { timeline: 2 })
      await until(() => spoolRanges(spool)[0]?.to === 3n * SEGMENT)
      writeFileSync(join(inbox, names[0]!), '')
      await until(() => refusedCount(states) === 1001)
    })
    for (const name of names) writeFileSync(join(inbox, name), '')
    const prepare = (): void => writeFileSync(join(inbox, nameOf(0)), '')
    await failsWith('source.failed', /more than 1000 of its files are refused/, prepare)
  },
)

test(
  'receiveArchive() follows a timeline; the one that was left is compared',
  { timeout: 20_000 },
  async () => {
    for (const number of [1, 2]) put(number)
    await whileTaking(async (spool, { settle, states, until, clock }) => {
      await settle()
      put(3, { timeline: 2 })
      await until(() => {
        clock.advance(1000)
        return states.at(-1)?.kind === 'gap'
      })
      assert.match(JSON.stringify(states.at(-1)), /has no ."00000002\.history/)
      writeFileSync(join(inbox, '00000002.history'), HISTORY)
      await settle()
      assert.equal(readHistory(spool, 2), HISTORY)
      assert.deepEqual(states.at(-1), { kind: 'branch', from: '0/350000 on timeline 1', to: 'timeline 2' })
      assert.deepEqual(spoolRanges(spool), [
        { timeline: 1, from: SEGMENT, to: 3n * SEGMENT },
        { timeline: 2, from: 3n * SEGMENT, to: 4n * SEGMENT },
      ])
      put(2)
      writeFileSync(join(inbox, `${nameOf(3)}.partial`), segment(3))
      await settle()
      put(3)
      await until(() => states.at(-1)?.kind === 'refused')
      assert.match(JSON.stringify(states.at(-1)), /timeline 1 was left for 2/)
      assert.deepEqual(held(), [nameOf(3)])
    })
    await failsWith('source.diverged', /differs from what was taken before/, () => put(2, { fill: 9 }))
    rmSync(join(inbox, nameOf(2)))
    await failsWith('source.diverged', /left at 0\/350000 for 2, and a server goes on with it/, () => put(4))
    for (const name of held()) rmSync(join(inbox, name))
    await whileTaking(async (spool, { settle }) => {
      releaseSpool(spool, { timeline: 1, lsn: 3n * SEGMENT })
      assert.equal(spoolRanges(spool).length, 1)
      put(2)
      writeFileSync(join(inbox, `${nameOf(3)}.partial`), segment(3))
      await settle()
    })
  },
)

test('receiveArchive() leaves what it does not know, and removes what killed commands left', async () => {
  const [young, old] = [`.${nameOf(1)}.1.tmp`, `.${nameOf(1)}.2.tmp`]
  for (const name of ['notes.txt', young, old]) writeFileSync(join(inbox, name), '')
  const now = fakeClock().now() / 1000
  utimesSync(join(inbox, young), now, now - 3500)
  utimesSync(join(inbox, old), now, now - 3700)
  await whileTaking(async (_, { states, until }) => {
    await until(() => !held().includes(old) && states.length > 1)
    assert.deepEqual(held().toSorted(), [young, 'notes.txt'])
    assert.match(JSON.stringify(states), /notes\.txt.{1,3}is not taken/)
    assert.equal(states.filter(({ kind }) => kind === 'refused').length, 1)
  })
})

test('makeInbox() writes nothing and reads nothing through what the server put into the inbox', () => {
  const victim = join(folder, '..', 'victim')
  writeFileSync(victim, 'precious')
  const marker = join(inbox, '.backstock')
  symlinkSync(victim, `${marker}.tmp`)
  const plants = [
    () => symlinkSync(victim, marker),
    () => symlinkSync(join(folder, 'nowhere'), marker),
    () => execFileSync('mkfifo', [marker]),
    () => truncateSync(marker, 2 ** 40),
  ]
  for (const [nth, plant] of plants.entries()) {
    if (nth < 3) rmSync(marker, { force: true })
    plant()
    makeInbox(folder, 9)
    assert.equal(readFileSync(victim, 'utf8'), 'precious')
    assert.ok(lstatSync(marker).isFile())
    assert.equal(readFileSync(marker, 'utf8'), '9\n')
  }
  assert.deepEqual(readdirSync(folder), ['inbox'])
})

test(
  'makeInbox() gives a new inbox the group of the folder of all spools, where it may',
  { skip: process.getuid?.() === 0 ? false : 'only root may give any group' },
  () => {
    const spools = mkdtempSync(join(tmpdir(), 'backstock-spools-'))
    try {
      chownSync(spools, 0, 12_345)
      const spool = join(spools, 'repository', 'orders')
      mkdirSync(spool, { recursive: true })
      // Left by one that was killed before it was done.
      mkdirSync(join(spool, 'inbox.new'))
      const made = makeInbox(spool, 8)
      const { gid, mode } = statSync(made)
      assert.deepEqual([gid, mode & 0o7777], [12_345, 0o2770])
      chownSync(made, 0, 23_456)
      makeInbox(spool, 9)
      assert.equal(statSync(made).gid, 23_456)
    } finally {
      rmSync(spools, { recursive: true })
    }
  },
)

test('makeInbox() lets the users of its group write, all others only pass, and leaves what was set', () => {
  const modeOf = (path: string): number => statSync(path).mode & 0o7777
  assert.deepEqual([inbox, folder, dirname(folder)].map(modeOf), [0o2770, 0o711, 0o711])
  chmodSync(inbox, 0o2730)
  makeInbox(folder, 9)
  assert.equal(readFileSync(join(inbox, '.backstock'), 'utf8'), '9\n')
  assert.deepEqual([inbox, join(inbox, '.backstock')].map(modeOf), [0o2730, 0o644])
})

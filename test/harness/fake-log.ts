/**
 * A source's log in this process, for tests of the shipper: branches of bytes that can be told from their
 * position, a "disk" that outlives the shippers that open it, and a shipper whose events can be awaited.
 */
import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ship, type ShipEvent, type ShipOptions } from '../../src/backup/ship.ts'
import { systemClock } from '../../src/base/clock.ts'
import type { Failure } from '../../src/base/failure.ts'
import type { Access } from '../../src/repo/keys.ts'
import { coverage, type PositionRange } from '../../src/repo/log-coverage.ts'
import { readLog } from '../../src/repo/log-reader.ts'
import { rangesOf } from '../../src/repo/log-table.ts'
import { listLogs, type LogList } from '../../src/repo/logs.ts'
import type { LogFeedEvents, LogFile, LogPoint, LogSource, LogStretch } from '../../src/sources/log-source.ts'
import { memoryStore } from '../../src/storage/memory.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { collect, LOG_BRANCH, streamBytes, type LogWorld } from './logs.ts'

export const SEGMENT = 4096
const SIZES = { segmentBytes: SEGMENT, tailsMax: 5 }
const QUICK = {
  flushMs: 2,
  idleMs: 10,
  retryMsMin: 1,
  retryMsMax: 2,
  configMs: 60_000,
  lastMs: 200,
  hangMs: 50,
}

export interface FakeLog {
  /** The folder of the spool. */
  readonly folder: string
  /** By branch, oldest first: what the disk holds. */
  readonly branches: { branch: string; from: bigint; to: bigint }[]
  readonly files: LogFile[]
  readonly released: LogPoint[]
  readonly notes: LogStretch[]
  hasNews: boolean
  /** Of the shipper that has it open. */
  events: LogFeedEvents | undefined
  fail: ((error: Failure) => void) | undefined
}

/** An empty log of one branch. */
export function newFakeLog(from = 0n): FakeLog {
  return {
    folder: mkdtempSync(join(tmpdir(), 'backstock-ship-')),
    branches: [{ branch: LOG_BRANCH, from, to: from }],
    files: [],
    released: [],
    notes: [],
    hasNews: false,
    events: undefined,
    fail: undefined,
  }
}

/** Adds to the last branch, as if it came from a server. */
export function grow(log: FakeLog, bytes: number): void {
  const last = log.branches.at(-1)
  assert.ok(last)
  last.to += BigInt(bytes)
  log.events?.onMore()
}

function fakeSource(log: FakeLog): LogSource {
  return {
    name: 'orders',
    kind: 'postgres',
    open: (_folder, events) => {
      log.events = events
      return {
        run: (signal) =>
          new Promise((resolve, reject) => {
            log.fail = reject
            if (signal.aborted) resolve()
            else signal.addEventListener('abort', () => resolve())
          }),
        held: () => log.branches.map((branch) => ({ ...branch })),
        files: () => log.files,
        read: (stretch) => readHeld(log, stretch),
        notes: (stretch) => {
          log.notes.push(stretch)
          return Buffer.from(`${stretch.from}-${stretch.to}`)
        },
        hasNews: () => log.hasNews,
        release: (point) => releaseHeld(log, point),
        close: () => {
          log.events = undefined
          log.fail = undefined
        },
      }
    },
  }
}

function readHeld(log: FakeLog, { branch, from, to }: LogStretch): Buffer {
  const held = log.branches.find((each) => each.branch === branch)
  assert.ok(held !== undefined && from >= held.from && to <= held.to, 'only what is held is read')
  return streamBytes(from, to)
}

/** As the spool: a segment before the end stays, but of a branch that is over nothing does. */
function releaseHeld(log: FakeLog, point: LogPoint): void {
  log.released.push(point)
  const held = log.branches.find(({ branch }) => branch === point.branch)
  if (held === undefined) return
  if (held !== log.branches.at(-1) && point.at >= held.to) log.branches.splice(log.branches.indexOf(held), 1)
  else if (point.at - BigInt(SEGMENT) > held.from) held.from = point.at - BigInt(SEGMENT)
}

export interface Shipping {
  readonly events: ShipEvent[]
  /** Rejects with what the shipper fails with. */
  readonly ended: Promise<void>
  /** Resolves when `is` holds after an event; fails when the shipper ends before. */
  readonly until: (is: () => boolean) => Promise<void>
  /** Until the repository has it up to there. */
  readonly reached: (to: bigint) => Promise<void>
  readonly stop: () => Promise<void>
}

/** Ships `log`, quickly and in small segments, until stop(). */
export function startShipping(
  access: Access,
  log: FakeLog,
  change: Partial<Omit<ShipOptions, 'signal'>> = {},
): Shipping {
  const control = new AbortController()
  const events: ShipEvent[] = []
  const waiting = new Set<() => void>()
  const ended = ship(access, fakeSource(log), {
    spool: log.folder,
    clock: systemClock,
    signal: control.signal,
    onEvent: (event) => {
      events.push(event)
      for (const check of waiting) check()
    },
    sizes: SIZES,
    ...change,
    timing: { ...QUICK, ...change.timing },
  })
  ended.catch(() => undefined)
  const until = async (is: () => boolean): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const check = (): void => {
      if (is()) resolve()
    }
    waiting.add(check)
    check()
    const early = ended.then(() => assert.fail('the shipper ended before it came to what was awaited'))
    early.catch(() => undefined)
    await Promise.race([promise, early]).finally(() => waiting.delete(check))
  }
  const reached = (to: bigint): Promise<void> =>
    until(() => events.some((event) => event.kind === 'shipped' && event.to >= to))
  const stop = async (): Promise<void> => {
    control.abort()
    await ended
  }
  return { events, ended, until, reached, stop }
}

/** The same world through another store. */
export function accessThrough(world: LogWorld, store: BlobStore): Access {
  return { ...world.access, store, opened: new Map() }
}

/** What a reader with the kit sees. */
export async function listWorld(world: LogWorld): Promise<LogList> {
  return await listLogs({ ...world.owner, store: memoryStore({ disk: world.disk }) })
}

/** Asserts that a branch of the repository is one stretch with the right bytes; returns it. */
export async function assertStored(
  world: LogWorld,
  range: PositionRange,
  branch = LOG_BRANCH,
): Promise<LogList> {
  const list = await listWorld(world)
  const table = list.branches.find((each) => each.branch === branch)
  assert.ok(table, `there is no ${branch}`)
  assert.deepEqual(coverage(rangesOf(table)), [range])
  const access = { ...world.owner, store: memoryStore({ disk: world.disk }) }
  const bytes = Buffer.concat(await collect(readLog(access, table, range)))
  assert.ok(bytes.equals(streamBytes(range.from, range.to)), 'the bytes are those of the log')
  return list
}

/** Names of stored pieces below the source, without their common beginning. */
export function piecesOf(world: LogWorld, branch = LOG_BRANCH): { segments: number; tails: number } {
  const names = [...world.disk.keys()].filter((name) => name.includes(`/${branch}/`))
  const pieces = names.filter((name) => !name.includes('/files/'))
  const tails = pieces.filter((name) => name.includes('/tail/')).length
  return { segments: pieces.length - tails, tails }
}

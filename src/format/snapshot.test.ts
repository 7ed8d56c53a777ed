import { strict as assert } from 'node:assert'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { assertFailsCleanly } from '../../test/harness/damage.ts'
import { testSeed } from '../../test/harness/engine.ts'
import { isFailure } from '../base/failure.ts'
import {
  decodeDetails,
  encodeDetails,
  parseSession,
  parseSnapshot,
  sessionName,
  SNAPSHOT_ID,
  snapshotId,
  snapshotName,
} from './snapshot.ts'

const seed = testSeed()
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
const hex = (bytes: number) => randomBytes(bytes).toString('hex')

const id = snapshotId(Date.UTC(2026, 10, 22, 14, 33, 23, 999), Buffer.from('4f8a2c1d', 'hex'))
const packSet = hex(16)
const lineage = [{ packSet, runs: [{ n: 0, sha256: hex(32), entries: 12 }], packs: 3, bytes: 4_000_000 }]
const full = {
  type: 'snapshot',
  version: 1,
  id,
  source: 'media',
  sourceKind: 'files',
  kind: 'full',
  generation: packSet,
  packSet,
  full: id,
  parent: null,
  counter: 1,
  previous: null,
  begun: '2026-11-22T14:33:23.000Z',
  completed: '2026-11-22T14:33:25.000Z',
  partial: false,
  lineage,
  root: hex(32),
  refs: [hex(32)],
  epoch: 1,
  tags: ['before the sale'],
  totals: { files: 2, directories: 1, others: 0, bytes: 12 },
  sealed: Buffer.from('details').toString('base64'),
}
const session = {
  type: 'session',
  version: 1,
  id,
  source: 'media',
  kind: 'full',
  generation: packSet,
  packSet,
  parent: null,
  epoch: 1,
  begun: full.begun,
  snapshot: snapshotName('0123456789abcdef', 'media', id),
}
const details = {
  host: 'shop-1',
  paths: ['/srv/media'],
  users: { 0: 'root', 33: 'www-data' },
  groups: { 0: 'root' },
  excludes: ['*.tmp'],
  errors: [{ path: '/srv/media/k\u00e4se', what: 'no right to read' }],
}

test('snapshotId() is the UTC second and 4 random bytes, and fits names of objects', () => {
  assert.equal(id, '20261122t143323z-4f8a2c1d')
  assert.match(id, SNAPSHOT_ID)
  assert.equal(sessionName('00', 'media', id), `sessions/00/media/${id}`)
})

test('parseSnapshot() and parseSession() take sound payloads and keep fields they do not know', () => {
  assert.deepEqual(parseSnapshot({ ...full, later: 1 }, 's'), { ...full, later: 1 })
  assert.deepEqual(parseSession({ ...session, later: 1 }, 's'), { ...session, later: 1 })
})

test('parseSnapshot() refuses whatever is missing or makes no sense', () => {
  for (const field of Object.keys(full)) {
    const { [field]: _gone, ...rest } = full as Record<string, unknown>
    assert.throws(() => parseSnapshot(rest, 's'), fails('repo.corrupt'), field)
  }
  const wrong: Record<string, unknown>[] = [
    { id: '../../etc' },
    { source: 'Media' },
    { kind: 'whole' },
    { counter: 0 },
    { counter: 2 },
    { previous: hex(32) },
    { full: snapshotId(0, randomBytes(4)) },
    { generation: hex(16) },
    { lineage: [lineage[0], lineage[0]] },
    { lineage: Array.from({ length: 5000 }, () => lineage[0]) },
    { lineage: [{ ...lineage[0], runs: [{ n: 1_000_000, sha256: hex(32), entries: 1 }] }] },
    { refs: ['short'] },
    { epoch: 0 },
    { totals: { ...full.totals, files: -1 } },
    { totals: { ...full.totals, others: 1e15 } },
    { totals: { files: 1, directories: 1 } },
    {
      totals: { ...full.totals, ...Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`t${at}`, 1])) },
    },
    { sealed: 'not base64!' },
    { completed: '2026-11-22T14:33:25+02:00' },
  ]
  for (const change of wrong) {
    const label = JSON.stringify(change).slice(0, 80)
    assert.throws(() => parseSnapshot({ ...full, ...change }, 's'), fails('repo.corrupt'), label)
  }
})

test('parseSession() refuses whatever is missing', () => {
  for (const field of Object.keys(session)) {
    const { [field]: _gone, ...rest } = session as Record<string, unknown>
    assert.throws(() => parseSession(rest, 's'), fails('repo.corrupt'), field)
  }
})

test('a payload of a newer version is repo.newer', () => {
  assert.throws(() => parseSnapshot({ version: 2 }, 's'), fails('repo.newer'))
  assert.throws(() => parseSession({ version: 2 }, 's'), fails('repo.newer'))
})

test('decodeDetails() gives back what encodeDetails() wrote', () => {
  assert.deepEqual(decodeDetails(encodeDetails(details), 'd'), details)
})

test('decodeDetails() refuses damage without quoting the secret text', () => {
  for (const text of ['{"host":"secret-host"', '"secret-host"', '{"host":["secret-host"]}']) {
    assert.throws(
      () => decodeDetails(Buffer.from(text), 'd'),
      (error) => isFailure(error, 'repo.corrupt') && !error.message.includes('secret'),
    )
  }
})

test('damaged details fail cleanly', () => {
  assertFailsCleanly(encodeDetails(details), (bytes) => decodeDetails(bytes, 'd'))
})

test(`details of any names come back (SEED=${seed})`, () => {
  const text = fc.string({ unit: 'binary', maxLength: 50 }).map((any) => Buffer.from(any).toString('latin1'))
  const owners = fc.dictionary(fc.nat().map(String), text, { noNullPrototype: true, maxKeys: 5 })
  const any = fc.record(
    {
      host: text,
      paths: fc.array(text),
      users: owners,
      groups: owners,
      excludes: fc.array(text),
      errors: fc.array(fc.record({ path: text, what: text }, { noNullPrototype: true })),
    },
    { noNullPrototype: true },
  )
  fc.assert(
    fc.property(any, (given) => {
      assert.deepEqual(decodeDetails(encodeDetails(given), 'd'), given)
    }),
    { seed },
  )
})

test(`whatever one field of a payload holds, it is kept as it is or refused cleanly (SEED=${seed})`, () => {
  const change = fc.record({ field: fc.nat(), value: fc.jsonValue() })
  fc.assert(
    fc.property(change, ({ field, value }) => {
      for (const [whole, parse] of [
        [full, parseSnapshot],
        [session, parseSession],
      ] as const) {
        const names = Object.keys(whole)
        const changed = { ...whole, [names[field % names.length] ?? '']: value }
        try {
          assert.deepEqual(parse(changed, 's'), changed)
        } catch (error) {
          assert.ok(isFailure(error), String(error))
        }
      }
    }),
    { seed, numRuns: 400 },
  )
})

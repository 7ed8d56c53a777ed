/** Against a real server, logged in with a password as a user who may only replicate. */
import assert from 'node:assert/strict'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { randomHex } from '../../base/random.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  stopPostgres,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { copyBoth, fakePostgres, logData } from '../../../test/harness/fake-postgres.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import {
  closeReplication,
  openReplication,
  resumeReplication,
  runCommand,
  sendCopyDone,
  sendData,
  type Replication,
  type ServerPlace,
} from './replication.ts'
import { eventOf } from './wal-events.ts'
import { feedWal, newWalReader } from './wal-reader.ts'
import { decodeRecord, newWalRecord } from './wal-record.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
const password = randomHex(12)
let server: PostgresServer
let place: ServerPlace

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres()
    sql(server, `create role backstock login replication password '${password}'`)
    const rules = 'local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n'
    writeFileSync(join(server.data, 'pg_hba.conf'), rules)
    appendFileSync(
      join(server.data, 'pg_hba.conf'),
      'host replication backstock 127.0.0.1/32 scram-sha-256\n',
    )
    sql(server, 'select pg_reload_conf()', 'create table t as select generate_series(1, 100000) i')
    const { port } = server
    place = { host: '127.0.0.1', port, user: 'backstock', password, tls: false, connectTimeoutMs: 10_000 }
  },
  { timeout: 60_000 },
)
after(async () => {
  if (skip === false) await dropPostgres(server)
})

async function withReplication(body: (replication: Replication) => Promise<void>): Promise<void> {
  const replication = await openReplication(place)
  try {
    await body(replication)
  } finally {
    closeReplication(replication)
  }
}

test('openReplication() logs in by password and runCommand() gives rows', { skip }, async () => {
  await withReplication(async (replication) => {
    const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
    assert.match(system?.[0] ?? '', /^\d{18,20}$/)
    assert.equal(system?.[1], '1')
    assert.ok(parseLsn(system?.[2] ?? '') > 0n)
    assert.deepEqual(await runCommand(replication, 'SHOW wal_segment_size'), [['16MB']])
  })
})

test('a command that the server refuses fails with its words, and the next one works', { skip }, async () => {
  await withReplication(async (replication) => {
    const slot = 'START_REPLICATION SLOT "none" PHYSICAL 0/0'
    await assert.rejects(
      runCommand(replication, slot),
      (error) =>
        isFailure(error, 'source.failed') &&
        /Cannot run START_REPLICATION on .*: replication slot "none" does not exist/.test(error.message),
    )
    assert.deepEqual(await runCommand(replication, 'SHOW wal_segment_size'), [['16MB']])
  })
})

test(
  'a base backup comes whole, also when its reading is paused again and again',
  { skip, timeout: 60_000 },
  async () => {
    const sizes: number[] = []
    for (const pausing of [false, true]) {
      await withReplication(async (replication) => {
        let bytes = 0
        let pauses = 0
        const onData = (payload: Buffer): boolean => {
          if (payload[0] === 0x64) bytes += payload.length - 1
          if (!pausing || ++pauses % 100 !== 0) return false
          setImmediate(() => resumeReplication(replication))
          return true
        }
        await runCommand(replication, "BASE_BACKUP (LABEL 'test', CHECKPOINT 'fast', WAL false)", { onData })
        assert.ok(!pausing || pauses > 200)
        sizes.push(bytes)
      })
    }
    assert.ok(sizes[0]! > 20_000_000)
    assert.ok(Math.abs(sizes[0]! - sizes[1]!) < 100_000, sizes.join(' '))
  },
)

test(
  'the log that is streamed is read as it comes, until sendCopyDone()',
  { skip, timeout: 60_000 },
  async () => {
    await withReplication(async (replication) => {
      const [system] = await runCommand(replication, 'IDENTIFY_SYSTEM')
      const now = parseLsn(system?.[2] ?? '')
      const from = now - (now % 0x1000000n)
      const names: string[] = []
      const record = newWalRecord()
      const reader = newWalReader({
        from,
        segmentBytes: 0x1000000,
        checkCrc: true,
        onRecord: (bytes, at, length) => {
          decodeRecord(record, bytes, { at, length }, server.major)
          const event = eventOf(record, server.major)
          if (event?.kind !== 'restore-point') return
          names.push(event.name)
          sendCopyDone(replication)
        },
      })
      await runCommand(replication, `START_REPLICATION PHYSICAL ${formatLsn(from)}`, {
        onCopyBoth: () => {
          sendData(replication, statusUpdate(from))
          sql(
            server,
            'insert into t select generate_series(1, 1000)',
            "select pg_create_restore_point('live')",
          )
        },
        onData: (payload) => {
          if (payload[0] === 0x77) feedWal(reader, payload.subarray(25))
        },
      })
      assert.deepEqual(names, ['live'])
      assert.deepEqual(await runCommand(replication, 'SHOW wal_segment_size'), [['16MB']])
    })
  },
)

/** "Standby status update": written, flushed and applied up to `lsn`. */
function statusUpdate(lsn: bigint): Buffer {
  const update = Buffer.alloc(34)
  update[0] = 0x72
  for (const at of [1, 9, 17]) update.writeBigUInt64BE(lsn, at)
  return update
}

test('a server that hangs in a command is given up; one that makes its checkpoint is not', async () => {
  const fake = await fakePostgres((command) =>
    command === 'SPEAK' ? [copyBoth(), logData(1n, Buffer.from('x'))] : [copyBoth()],
  )
  const fakePlace = { host: '127.0.0.1', port: fake.port, user: 'x', password: 'x', tls: false } as const
  const open = (): Promise<Replication> => openReplication({ ...fakePlace, connectTimeoutMs: 0 })
  try {
    const patient = await open()
    let hasEnded = false
    const waiting = runCommand(patient, 'WAIT', { silenceMs: 1, isPatient: true }).catch(() => {
      hasEnded = true
    })
    for (const [command, isPatient] of [
      ['WAIT', false],
      ['SPEAK', true],
    ] as const) {
      const replication = await open()
      const told = { message: new RegExp(`it says nothing for 0.02 s \\(in ${command}\\)`) }
      await assert.rejects(runCommand(replication, command, { silenceMs: 20, isPatient }), told)
      await assert.rejects(runCommand(replication, 'SHOW x'), told)
    }
    assert.equal(hasEnded, false)
    closeReplication(patient)
    await waiting
  } finally {
    await fake.close()
  }
})

test('a wrong password, a closed port and a dead server are told', { skip }, async () => {
  const wrong = openReplication({ ...place, password: 'wrong' })
  await assert.rejects(wrong, (error) => isFailure(error, 'source.failed') && /password/.test(error.message))
  const closed = openReplication({ ...place, port: 1 })
  await assert.rejects(
    closed,
    (error) => isFailure(error, 'source.failed') && /ECONNREFUSED/.test(error.message),
  )
  const replication = await openReplication(place)
  const endless = runCommand(replication, 'START_REPLICATION PHYSICAL 0/1000000')
  await Promise.all([
    assert.rejects(endless, (error) => isFailure(error, 'source.failed')),
    stopPostgres(server, 'SIGQUIT'),
  ])
  await assert.rejects(runCommand(replication, 'IDENTIFY_SYSTEM'), (error) =>
    isFailure(error, 'source.failed'),
  )
  closeReplication(replication)
})

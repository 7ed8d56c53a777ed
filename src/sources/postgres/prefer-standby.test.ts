import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { fakePostgres, refusal, row, type FakePostgres } from '../../../test/harness/fake-postgres.ts'
import { freePort } from '../../../test/harness/postgres.ts'
import { connectStandby } from './prefer-standby.ts'
import { closeReplication } from './replication.ts'

interface FakeServer {
  readonly isStandby: boolean
  readonly systemId?: string
  readonly position?: string
}

/** A server that refuses SQL: its position is what the replication protocol says. */
async function fakeServer({
  isStandby,
  systemId = '7',
  position = '1/0',
}: FakeServer): Promise<FakePostgres> {
  return await fakePostgres((command) => {
    if (command === 'IDENTIFY_SYSTEM') return [row(systemId, '1', position, null)]
    if (command === 'SHOW in_hot_standby') return [row(isStandby ? 'on' : 'off')]
    if (command === 'SHOW default_transaction_read_only') return [row('off')]
    if (command === 'SHOW server_version_num') return [row('150018')]
    return [refusal('42501', 'not for you')]
  })
}

/** Which of the servers was chosen, by its number, and what was warned of. */
async function choose(
  servers: readonly (FakeServer | 'away')[],
): Promise<{ chosen: number; warnings: string[] }> {
  const fakes: FakePostgres[] = []
  const ports: number[] = []
  for (const one of servers) {
    const fake = one === 'away' ? undefined : await fakeServer(one)
    if (fake !== undefined) fakes.push(fake)
    ports.push(fake?.port ?? (await freePort()))
  }
  const warnings: string[] = []
  const common = { host: '127.0.0.1', user: 'backup', password: undefined, connectTimeoutMs: 5000 }
  const places = ports.map((port) => ({ ...common, port, tls: false as const }))
  try {
    const target = { places, database: 'postgres', session: 'primary', parameters: {}, warnings: [] } as const
    const replication = await connectStandby(target, (text) => warnings.push(text))
    closeReplication(replication)
    return { chosen: ports.indexOf(replication.place.port), warnings }
  } finally {
    for (const fake of fakes) await fake.close()
  }
}

const primary = { isStandby: false }
const standby = { isStandby: true }

test('connectStandby() takes the first standby that is close behind, in any order of the URL', async () => {
  const behind = { isStandby: true, position: '0/F0000000' }
  assert.deepEqual(await choose([primary, behind, standby]), { chosen: 1, warnings: [] })
  assert.deepEqual(await choose([standby, primary]), { chosen: 0, warnings: [] })
})

test('connectStandby() passes over a standby that is far behind, and one of another cluster', async () => {
  const far = { isStandby: true, position: '0/EFFFFFFF' }
  const foreign = { isStandby: true, systemId: '8' }
  assert.deepEqual(await choose([far, foreign, primary, standby]), { chosen: 3, warnings: [] })
  const { chosen, warnings } = await choose([far, foreign, primary])
  assert.equal(chosen, 2)
  assert.equal(warnings.length, 1)
  assert.match(warnings[0] ?? '', /backs up the primary .*268435457 bytes of log behind.*another cluster/)
})

test('connectStandby() takes a standby whose primary is away or not named', async () => {
  const old = { isStandby: true, position: '0/1000000' }
  assert.deepEqual(await choose(['away', old]), { chosen: 1, warnings: [] })
  assert.deepEqual(await choose([old]), { chosen: 0, warnings: [] })
})

test('connectStandby() takes the primary where no standby answers, and says so', async () => {
  const { chosen, warnings } = await choose(['away', primary])
  assert.equal(chosen, 1)
  assert.match(warnings[0] ?? '', /backs up the primary 127\.0\.0\.1:\d+ as backup, .*ECONNREFUSED/)
  const alone = await choose([primary])
  assert.match(alone.warnings[0] ?? '', /none of its servers is a standby/)
})

test('connectStandby() names every server when none answers', async () => {
  await assert.rejects(
    choose(['away', 'away']),
    (error) => isFailure(error, 'source.failed') && error.message.match(/ECONNREFUSED/g)?.length === 2,
  )
})

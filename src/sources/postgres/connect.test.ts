/** Against real servers: TLS with certificates made here, SCRAM by TCP and Unix socket, several hosts. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { randomHex } from '../../base/random.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { makeStandby } from '../../../test/harness/postgres-standby.ts'
import {
  enableTls,
  hasOpenssl,
  setPostgres,
  writeLoginRules,
  type TestCertificates,
} from '../../../test/harness/postgres-tls.ts'
import { connectReplication, connectSql } from './connect.ts'
import { closeReplication, resumeReplication, runCommand } from './replication.ts'
import { findServer, type ServerTarget } from './server-place.ts'
import { closeSql, runSql } from './sql-session.ts'

const skip =
  postgresFolder() === undefined
    ? 'PostgreSQL is not installed'
    : hasOpenssl()
      ? false
      : 'openssl is not installed'
const password = randomHex(12)
let server: PostgresServer
let standby: PostgresServer
let made: TestCertificates
let home = ''

before(
  async () => {
    if (skip !== false) return
    home = mkdtempSync(join(tmpdir(), 'backstock-home-'))
    server = await makePostgres({ settings: ['max_wal_senders = 10'] })
    for (const user of ['safe', 'bare', 'either', 'certified'])
      sql(server, `create role ${user} login replication password '${password}'`)
    standby = await makeStandby(server)
    made = enableTls(server, 'certified')
    const rules = ['all', 'replication'].flatMap((database) => [
      `hostssl ${database} safe 127.0.0.1/32 scram-sha-256`,
      `hostnossl ${database} bare 127.0.0.1/32 scram-sha-256`,
      `host ${database} either 127.0.0.1/32 scram-sha-256`,
      `local ${database} either scram-sha-256`,
      `hostssl ${database} certified 127.0.0.1/32 cert`,
    ])
    writeLoginRules(server, rules)
    writeLoginRules(standby, ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'])
  },
  { timeout: 120_000 },
)
after(async () => {
  if (skip !== false) return
  rmSync(home, { recursive: true })
  await dropPostgres(server)
  await dropPostgres(standby)
})

interface Wish {
  readonly host?: string
  readonly user?: string
  readonly query?: string
  readonly password?: string | undefined
}

function target({ host = 'localhost', user = 'either', query = '', ...rest }: Wish = {}): ServerTarget {
  const url = `postgres://${user}@${host}:${server.port}/?${query}`
  const own = 'password' in rest ? rest.password : password
  return findServer({ url, password: own, env: { HOME: home }, systemUser: 'nobody' })
}

/** Logs in both ways, and says whether each used TLS. */
async function tlsOf(place: ServerTarget): Promise<string> {
  const session = await connectSql(place)
  const replication = await connectReplication(place)
  try {
    const own = 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'
    const port = replication.socket.localPort ?? -1
    const other = `select ssl from pg_stat_ssl join pg_stat_activity using (pid)
      where backend_type = 'walsender' and client_port = ${port}`
    return [(await runSql(session, own))[0]?.[0], sql(server, other)[0]].join(' ')
  } finally {
    closeReplication(replication)
    await closeSql(session)
  }
}

async function refuses(place: ServerTarget, text: RegExp): Promise<void> {
  for (const connect of [connectSql, connectReplication]) {
    await assert.rejects(connect(place), (error) => {
      assert.ok(isFailure(error, 'source.failed'), String(error))
      assert.match(error.message, text)
      return true
    })
  }
}

test('sslmode=verify-full logs in where the root and the name are right', { skip }, async () => {
  assert.equal(await tlsOf(target({ query: `sslmode=verify-full&sslrootcert=${made.root}` })), 't t')
})

test('a certificate for another host is refused by verify-full alone', { skip }, async () => {
  const query = `sslrootcert=${made.root}`
  const other = { host: '127.0.0.1' }
  await refuses(
    target({ ...other, query: `${query}&sslmode=verify-full` }),
    /certificate is for another host .*127\.0\.0\.1.*verify-full/,
  )
  for (const mode of ['verify-ca', 'require'])
    assert.equal(await tlsOf(target({ ...other, query: `${query}&sslmode=${mode}` })), 't t')
})

test('a certificate of another authority is refused whenever a root is named', { skip }, async () => {
  for (const mode of ['verify-full', 'verify-ca', 'require'])
    await refuses(
      target({ query: `sslmode=${mode}&sslrootcert=${made.otherRoot}` }),
      /certificate is not signed by the root certificate that sslrootcert names/,
    )
  await refuses(target({ query: 'sslrootcert=system' }), /certificate is not signed by/)
  assert.equal(await tlsOf(target({ query: 'sslmode=require' })), 't t')
})

test('sslmode=prefer and allow take the other way where the server asks for it', { skip }, async () => {
  for (const mode of ['prefer', 'allow']) {
    assert.equal(await tlsOf(target({ user: 'bare', query: `sslmode=${mode}` })), 'f f', mode)
    assert.equal(await tlsOf(target({ user: 'safe', query: `sslmode=${mode}` })), 't t', mode)
  }
  assert.equal(await tlsOf(target({ query: 'sslmode=prefer' })), 't t')
  assert.equal(await tlsOf(target({ query: 'sslmode=allow' })), 'f f')
  await refuses(target({ user: 'safe', query: 'sslmode=disable' }), /no pg_hba.conf entry/)
  await refuses(target({ user: 'bare', query: 'sslmode=require' }), /no pg_hba.conf entry/)
  await refuses(target({ user: 'none' }), /with TLS: no pg_hba.* without TLS: no pg_hba/)
})

test('a server without TLS is taken by prefer, not by require', { skip }, async () => {
  setPostgres(server, 'ssl', 'off')
  try {
    assert.equal(await tlsOf(target({ query: 'sslmode=prefer' })), 'f f')
    await refuses(target({ query: 'sslmode=require' }), /does not offer TLS \(it must have ssl = on/)
  } finally {
    setPostgres(server, 'ssl', 'on')
  }
})

test('prefer does not send a wrong password a second time, without TLS', { skip }, async () => {
  await refuses(
    target({ query: 'sslmode=prefer', password: 'wrong' }),
    /as either: password authentication failed/,
  )
})

test('a client certificate logs in', { skip }, async () => {
  const query = `sslmode=verify-full&sslrootcert=${made.root}`
  const files = `&sslcert=${made.clientCert}&sslkey=${made.clientKey}`
  const user = 'certified'
  assert.equal(await tlsOf(target({ user, query: query + files, password: undefined })), 't t')
  await refuses(target({ user, query, password: undefined }), /valid client certificate/)
})

test('a base backup and its pauses come whole through TLS', { skip, timeout: 60_000 }, async () => {
  const sizes: number[] = []
  for (const [mode, pausing] of [
    ['disable', false],
    ['require', false],
    ['require', true],
  ]) {
    const replication = await connectReplication(target({ query: `sslmode=${mode}` }))
    let bytes = 0
    let pieces = 0
    const onData = (payload: Buffer): boolean => {
      if (payload[0] === 0x64) bytes += payload.length - 1
      if (pausing !== true || ++pieces % 100 !== 0) return false
      setImmediate(() => resumeReplication(replication))
      return true
    }
    try {
      await runCommand(replication, "BASE_BACKUP (LABEL 'tls', CHECKPOINT 'fast', WAL false)", { onData })
    } finally {
      closeReplication(replication)
    }
    assert.ok(pausing !== true || pieces > 200)
    sizes.push(bytes)
  }
  const [plain = 0, ...others] = sizes
  assert.ok(plain > 20_000_000)
  for (const size of others) assert.ok(Math.abs(size - plain) < 200_000, sizes.join(' '))
})

test('a command through TLS fails when the server ends the connection', { skip }, async () => {
  const replication = await connectReplication(target({ query: 'sslmode=require' }))
  const endless = runCommand(replication, 'START_REPLICATION PHYSICAL 0/1000000', {
    onCopyBoth: () => {
      const port = replication.socket.localPort ?? -1
      sql(server, `select pg_terminate_backend(pid) from pg_stat_replication where client_port = ${port}`)
    },
  })
  await assert.rejects(endless, (error) => isFailure(error, 'source.failed'))
  await assert.rejects(runCommand(replication, 'IDENTIFY_SYSTEM'), (error) =>
    isFailure(error, 'source.failed'),
  )
  closeReplication(replication)
})

test('.pgpass logs in by SCRAM, over TCP and a Unix socket', { skip }, async () => {
  const file = join(home, '.pgpass')
  const { dir, port } = server
  const line = (host: string): string => `${host}:${port}:*:either:${password}\n`
  writeFileSync(file, `${line('localhost')}${line(dir)}`, { mode: 0o600 })
  const none = { password: undefined }
  try {
    assert.equal(await tlsOf(target(none)), 't t')
    const socket = { ...none, host: encodeURIComponent(dir), query: 'sslmode=require' }
    assert.equal(await tlsOf(target(socket)), 'f f')
    await refuses(target({ ...none, host: '127.0.0.1' }), /none is given, and .*\.pgpass has no line for 127/)
    writeFileSync(file, `*:*:*:*:wrong\n`)
    await refuses(target(none), /password authentication failed .*\(the password is from .*\.pgpass\)/)
    writeFileSync(file, `*:*:replication:*:${password}\n*:*:*:*:wrong\n`)
    closeReplication(await connectReplication(target(none)))
    await assert.rejects(connectSql(target(none)), /password authentication failed/)
  } finally {
    rmSync(file)
  }
  await refuses(target(none), /asks for a password, none is given/)
  await refuses(target({ ...none, host: '%2Fnone' }), /ENOENT .*\/none\/\.s\.PGSQL/)
})

test('a wrong password says so, with the code of the server', { skip }, async () => {
  await assert.rejects(
    connectSql(target({ password: 'wrong' })),
    (error) =>
      isFailure(error) &&
      error.facts['sqlstate'] === '28P01' &&
      /localhost:\d+ as either/.test(error.message),
  )
})

test('of several hosts the first that answers is taken, else each is named', { skip }, async () => {
  const { port } = server
  const url = (hosts: string): string => `postgres://either@${hosts}/?connect_timeout=5`
  const find = (hosts: string): ServerTarget =>
    findServer({ url: url(hosts), password, env: {}, systemUser: 'nobody' })
  const session = await connectSql(find(`127.0.0.1:1,127.0.0.1:${port}`))
  assert.equal(session.place.port, port)
  await closeSql(session)
  await refuses(
    find('127.0.0.1:1,localhost:2,no.such.host.invalid'),
    /of 3 servers:\n.*127\.0\.0\.1:1 .*REFUSED.*\n.*localhost:2 .*REFUSED.*\n.*no\.such\.host\.invalid/,
  )
})

test('a server that does not answer is given up after connect_timeout', { skip }, async () => {
  const mute: Server = createServer(() => undefined).listen(0, '127.0.0.1')
  await new Promise((resolve) => mute.once('listening', resolve))
  const address = mute.address()
  const port = typeof address === 'object' ? address?.port : 0
  const url = `postgres://either@127.0.0.1:${port}/?connect_timeout=1`
  await refuses(findServer({ url, env: {}, systemUser: 'nobody' }), /no answer within 1 s/)
  mute.close()
})

test('target_session_attrs chooses between a primary and its standby', { skip }, async () => {
  const both = `127.0.0.1:${server.port},127.0.0.1:${standby.port}`
  const find = (kind: string, hosts = both): ServerTarget =>
    findServer({
      url: `postgres://postgres@${hosts}/?target_session_attrs=${kind}`,
      env: {},
      systemUser: 'nobody',
    })
  const ports = async (found: ServerTarget): Promise<number[]> => {
    const session = await connectSql(found)
    const replication = await connectReplication(found)
    closeReplication(replication)
    await closeSql(session)
    return [session.place.port, replication.place.port]
  }
  writeLoginRules(server, ['host replication postgres 127.0.0.1/32 trust'])
  const swapped = both.split(',').toReversed().join(',')
  for (const kind of ['primary', 'read-write'])
    assert.deepEqual(await ports(find(kind, swapped)), [server.port, server.port], kind)
  for (const kind of ['standby', 'prefer-standby', 'read-only'])
    assert.deepEqual(await ports(find(kind)), [standby.port, standby.port], kind)
  const alone = `127.0.0.1:${server.port}`
  assert.deepEqual(await ports(find('prefer-standby', alone)), [server.port, server.port])
  await refuses(find('standby', alone), /it is a primary \(target_session_attrs=standby\)/)
  await refuses(find('read-write', `127.0.0.1:${standby.port}`), /it is read-only/)
})

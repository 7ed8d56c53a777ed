import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isFailure, type FailureCode } from '../../base/failure.ts'
import { hasOpenssl, makeCertificates } from '../../../test/harness/postgres-tls.ts'
import { findPassword, parsePassFile } from './pass-file.ts'
import { findServer, type ServerInput, type ServerTarget } from './server-place.ts'
import { parseServerUrl } from './server-url.ts'

const home = mkdtempSync(join(tmpdir(), 'backstock-place-'))
after(() => rmSync(home, { recursive: true }))

function find(url: string | undefined, env: ServerInput['env'] = {}, password?: string): ServerTarget {
  return findServer({ url, env, password, systemUser: 'me' })
}

function hosts({ places }: ServerTarget): string[] {
  return places.map(({ host, port }) => `${host} ${port}`)
}

function refuses(run: () => unknown, text: RegExp, code: FailureCode = 'config.invalid'): void {
  assert.throws(run, (error) => isFailure(error, code) && text.test(error.message))
}

test('parseServerUrl() reads each part, with escapes', () => {
  assert.deepEqual(
    parseServerUrl(
      'postgres://b%40ck:p%2Fw%3A%25@db.example:6543/or%20ders?sslmode=require&connect_timeout=3',
    ),
    {
      user: 'b@ck',
      password: 'p/w:%',
      host: 'db.example',
      port: '6543',
      dbname: 'or ders',
      sslmode: 'require',
      connect_timeout: '3',
    },
  )
  assert.deepEqual(parseServerUrl('postgresql://'), {})
  assert.deepEqual(parseServerUrl('postgres://u@?host=/run/postgresql'), {
    user: 'u',
    host: '/run/postgresql',
  })
  assert.deepEqual(parseServerUrl('postgres://db/x?ssl=true'), {
    host: 'db',
    dbname: 'x',
    sslmode: 'require',
  })
})

test('parseServerUrl() refuses what it does not understand and never shows a password', () => {
  const cases: [string, RegExp][] = [
    ['mysql://db', /must begin with postgres:/],
    ['postgres://u:se@cret@db/', /more than one "@".*%40/],
    ['postgres://u:se/cret@db/', /a host or its port cannot be read.*%2F/],
    ['postgres://u:100%cret@db/', /the password has a "%" that is no escape/],
    ['postgres://u:a%00cret@db/', /the password holds a line break or a zero byte/],
    ['postgres://::1/', /IPv6 address stands in brackets/],
    ['postgres://db/?sslmodus=require', /"sslmodus" is not known \(must be one of host, /],
    ['postgres://db/?channel_binding=require', /"channel_binding" is not known/],
    ['postgres://db/?sslmode', /"sslmode" has no value/],
  ]
  for (const [url, text] of cases) {
    refuses(() => parseServerUrl(url), text)
    assert.throws(
      () => parseServerUrl(url),
      (error) => error instanceof Error && !error.message.includes('cret'),
    )
  }
})

test('findServer() gives a place for each host with its port', () => {
  assert.deepEqual(hosts(find('postgres://a:1,b:2/')), ['a 1', 'b 2'])
  assert.deepEqual(hosts(find('postgres://a,b:6000,[2001:db8::1]:7/')), ['a 5432', 'b 6000', '2001:db8::1 7'])
  assert.deepEqual(hosts(find('postgres://a,b/?port=7777')), ['a 7777', 'b 7777'])
  assert.deepEqual(hosts(find('postgres://a,b/', { PGPORT: '1,2', PGHOST: 'c' })), ['a 1', 'b 2'])
  assert.deepEqual(hosts(find('postgres://%2Frun%2Fpg:1/')), ['/run/pg 1'])
  assert.deepEqual(hosts(find('postgres://ignored/?host=/run/pg')), ['/run/pg 5432'])
  assert.deepEqual(hosts(find('postgres://:1/')), ['localhost 1'])
  refuses(() => find('postgres://a,b,c/?port=1,2'), /2 ports for 3 hosts/)
  refuses(() => find('postgres://a:65536/'), /port is "65536" \(must be 1 to 65535\)/)
  refuses(() => find(`postgres://${'h,'.repeat(100)}/`), /101 hosts \(at most 100\)/)
})

test('findServer() takes the URL before the environment and both before the defaults', () => {
  const env = {
    PGHOST: 'envhost',
    PGUSER: 'envuser',
    PGDATABASE: 'envdb',
    PGCONNECT_TIMEOUT: '7',
    PGAPPNAME: 'x',
  }
  const ofEnv = find(undefined, env)
  assert.deepEqual(hosts(ofEnv), ['envhost 5432'])
  assert.equal(ofEnv.places[0]?.user, 'envuser')
  assert.equal(ofEnv.places[0]?.connectTimeoutMs, 7000)
  assert.equal(ofEnv.places[0]?.applicationName, 'x')
  assert.equal(ofEnv.database, 'envdb')
  const ofUrl = find('postgres://u@h/d?connect_timeout=1&target_session_attrs=standby', env)
  assert.deepEqual([hosts(ofUrl)[0], ofUrl.places[0]?.user, ofUrl.database], ['h 5432', 'u', 'd'])
  assert.equal(ofUrl.session, 'standby')
  const plain = find('postgres://h')
  assert.deepEqual([plain.places[0]?.user, plain.database, plain.session], ['me', 'postgres', 'any'])
  assert.equal(plain.places[0]?.connectTimeoutMs, 10_000)
  refuses(() => find('postgres://h/?connect_timeout=soon'), /connect_timeout is "soon"/)
  refuses(() => find('postgres://h/?target_session_attrs=master'), /"master" \(must be one of any, primary/)
})

test('findServer() reads a service, which the URL overrides', () => {
  const file = join(home, 'services')
  writeFileSync(file, '# a\n[other]\nhost=no\n[shop]\nhost = s1,s2\nport=1,2\nuser=svc\n\n[bad]\nfoo=1\n')
  const env = { PGSERVICEFILE: file, PGUSER: 'envuser', PGSYSCONFDIR: home }
  const target = find('postgres://?service=shop&port=9', env)
  assert.deepEqual(hosts(target), ['s1 9', 's2 9'])
  assert.equal(target.places[0]?.user, 'svc')
  refuses(() => find('postgres://?service=none', env), /service "none" \(must be a section of .*services or /)
  refuses(() => find(undefined, { ...env, PGSERVICE: 'bad' }), /line 10 of .*services sets "foo"/)
})

test('a password is given once: by the configuration, the URL or the environment', () => {
  assert.equal(find('postgres://h', { PGPASSWORD: 'env' }).places[0]?.password, 'env')
  assert.equal(find('postgres://u:url@h', { PGPASSWORD: 'env' }).places[0]?.password, 'url')
  assert.equal(find('postgres://u@h', { PGPASSWORD: 'env' }, 'own').places[0]?.password, 'own')
  refuses(() => find('postgres://u:url@h', {}, 'own'), /both url and password hold a password/)
})

test('parsePassFile() and findPassword() follow libpq: escapes, "*", the first line that fits', () => {
  const lines = parsePassFile(
    '#c:1:d:u:p\n\nshort:1:d:u\ndb:5432:*:u:first:with colon\\\\\ndb:*:*:*:second\r\nfe80\\:\\:1:1:d:u:v6\n' +
      'localhost:5432:replication:u:socket\n',
  )
  assert.equal(lines.length, 4)
  const ask = (host: string, port: number, database: string): string | undefined =>
    findPassword(lines, { host, port, database, user: 'u' })
  assert.equal(ask('db', 5432, 'x'), 'first:with colon\\')
  assert.equal(ask('db', 1, 'x'), 'second')
  assert.equal(ask('fe80::1', 1, 'd'), 'v6')
  assert.equal(ask('/tmp', 5432, 'replication'), 'socket')
  assert.equal(ask('/elsewhere', 5432, 'replication'), undefined)
  assert.equal(ask('short', 1, 'd'), undefined)
})

test('.pgpass is asked host by host, and is ignored with a warning when others may read it', () => {
  const file = join(home, '.pgpass')
  writeFileSync(file, 'a:1:replication:me:pa\nb:2:*:me:pb\n', { mode: 0o600 })
  const ask = (target: ServerTarget, at: number): string => {
    const password = target.places[at]?.password
    assert.ok(typeof password === 'function')
    return password('replication').text
  }
  const target = find('postgres://a:1,b:2,c:3/', { HOME: home })
  assert.deepEqual([ask(target, 0), ask(target, 1), target.warnings], ['pa', 'pb', []])
  const none = /asks for a password, none is given, and .*\.pgpass has no line for c:3:replication:me/
  refuses(() => ask(target, 2), none, 'source.failed')
  chmodSync(file, 0o640)
  const open = find('postgres://a:1/', { PGPASSFILE: file })
  assert.match(open.warnings.join(), /\.pgpass is ignored: others .* may use it \(run: chmod 0600 /)
  refuses(() => ask(open, 0), /password, .*\.pgpass is ignored: others/, 'source.failed')
  assert.match(find('postgres://a', { PGPASSFILE: home }).warnings.join(), /no plain file/)
  assert.deepEqual(find('postgres://a', { PGPASSFILE: join(home, 'none') }).warnings, [])
})

test('sslmode chooses what is checked of a certificate', { skip: !hasOpenssl() && 'no openssl' }, () => {
  const folder = join(home, '.postgresql')
  mkdirSync(folder)
  const made = makeCertificates(folder, 'me')
  const tls = (query: string, env = {}): Pick<ServerTarget['places'][0], 'tls' | 'tlsElse'> =>
    find(`postgres://h/?${query}`, env).places[0]!
  const rejects = ({ tls: options }: ReturnType<typeof tls>): boolean =>
    options !== false && options.rejectUnauthorized !== false
  assert.equal(tls('sslmode=disable').tls, false)
  assert.deepEqual([tls('').tlsElse, rejects(tls(''))], [false, false])
  assert.deepEqual([tls('sslmode=allow').tls, typeof tls('sslmode=allow').tlsElse], [false, 'object'])
  assert.deepEqual([rejects(tls('sslmode=require')), tls('sslmode=require').tlsElse], [false, undefined])
  const byRoot = tls(`sslmode=require&sslrootcert=${made.root}`)
  const byCa = tls('sslmode=verify-ca', { PGSSLROOTCERT: made.root })
  for (const { tls: options } of [byRoot, byCa])
    assert.ok(options !== false && options.ca !== undefined && options.checkServerIdentity !== undefined)
  const full = tls('', { HOME: home, PGSSLMODE: 'verify-full', PGSSLROOTCERT: made.root }).tls
  assert.ok(full !== false && full.ca !== undefined && full.checkServerIdentity === undefined)
  assert.ok(rejects(tls('sslrootcert=system')))
  refuses(() => tls('sslmode=verify'), /sslmode .* is "verify" \(must be one of disable, /)
  refuses(() => tls('sslmode=verify-full'), /root certificate of sslrootcert is not there/)
  refuses(() => tls('sslmode=require&sslrootcert=/none'), /root certificate \/none is not there/)
  refuses(() => tls('sslmode=verify-ca&sslrootcert=system'), /sslrootcert=system .*must be verify-full/)
  refuses(() => tls(`sslmode=require&sslrootcert=${home}`), /Cannot read ".*"/, 'host.file')
  const bad = join(home, 'bad.crt')
  writeFileSync(bad, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
  refuses(() => tls(`sslmode=verify-ca&sslrootcert=${bad}`), /Cannot use the certificates .* \(must be PEM\)/)
  const client = `sslcert=${made.clientCert}&sslkey=${made.clientKey}`
  const withKey = tls(client).tls
  assert.ok(withKey !== false && withKey.cert !== undefined && withKey.key !== undefined)
  refuses(() => tls(`sslcert=${made.clientCert}`), /client certificate: sslkey is not there/)
  chmodSync(made.clientKey, 0o640)
  refuses(() => tls(client), /others than its owner may read it \(run: chmod 0600/, 'host.file')
})

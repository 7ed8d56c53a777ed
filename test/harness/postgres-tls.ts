/** Certificates made for one test, and a server of postgres.ts that uses them. No key is ever kept. */
import { execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, chownSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql, type PostgresServer } from './postgres.ts'

export interface TestCertificates {
  /** Signed those below. */
  readonly root: string
  /** Signed nothing. */
  readonly otherRoot: string
  /** Of the server, for the name `localhost` alone. */
  readonly serverCert: string
  readonly serverKey: string
  /** Of a client, for one user. */
  readonly clientCert: string
  readonly clientKey: string
}

const RELOADS_MAX = 200

export function hasOpenssl(): boolean {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Writes them into `folder`, which must be there. Keys are for their owner alone. */
export function makeCertificates(folder: string, user: string): TestCertificates {
  const at = (name: string): string => join(folder, name)
  for (const name of ['root', 'other']) {
    const subject = ['-subj', `/CN=${name} of a test`, '-days', '2']
    openssl('req', '-x509', ...newKey(at(`${name}.key`)), ...subject, '-out', at(`${name}.crt`))
  }
  const signed = { server: 'localhost', client: user }
  for (const [name, commonName] of Object.entries(signed)) {
    const request = at(`${name}.csr`)
    openssl('req', ...newKey(at(`${name}.key`)), '-subj', `/CN=${commonName}`, '-out', request)
    writeFileSync(at(`${name}.ext`), `subjectAltName=DNS:${commonName}\n`)
    const signer = ['-CA', at('root.crt'), '-CAkey', at('root.key'), '-CAcreateserial', '-days', '2']
    openssl(
      'x509',
      '-req',
      '-in',
      request,
      ...signer,
      '-extfile',
      at(`${name}.ext`),
      '-out',
      at(`${name}.crt`),
    )
    chmodSync(at(`${name}.key`), 0o600)
  }
  return {
    root: at('root.crt'),
    otherRoot: at('other.crt'),
    serverCert: at('server.crt'),
    serverKey: at('server.key'),
    clientCert: at('client.crt'),
    clientKey: at('client.key'),
  }
}

/** Turns TLS on at a server that runs; `user` is whose client certificate is made. */
export function enableTls(server: PostgresServer, user: string): TestCertificates {
  const folder = join(server.dir, 'tls')
  mkdirSync(folder)
  const made = makeCertificates(folder, user)
  const { uid, gid } = statSync(server.data)
  for (const path of [folder, made.serverCert, made.serverKey, made.root]) chownSync(path, uid, gid)
  const files = [`ssl_cert_file = '${made.serverCert}'`, `ssl_key_file = '${made.serverKey}'`]
  appendFileSync(
    join(server.data, 'postgresql.conf'),
    `${[...files, `ssl_ca_file = '${made.root}'`].join('\n')}\n`,
  )
  setPostgres(server, 'ssl', 'on')
  return made
}

/** Changes a setting that needs no restart, and waits until new sessions see it. */
export function setPostgres(server: PostgresServer, name: string, value: string): void {
  sql(server, `alter system set ${name} = '${value}'`, 'select pg_reload_conf()')
  for (let round = 0; round < RELOADS_MAX; round++) if (sql(server, `show ${name}`)[0] === value) return
  throw new Error(`PostgreSQL does not take ${name} = ${value}`)
}

/** Replaces pg_hba.conf; what others than `postgres` may is up to `lines`. */
export function writeLoginRules(server: PostgresServer, lines: readonly string[]): void {
  const own = ['local all postgres trust', 'host all postgres 127.0.0.1/32 trust']
  writeFileSync(join(server.data, 'pg_hba.conf'), `${[...own, ...lines].join('\n')}\n`)
  const errors =
    "select coalesce(string_agg(error, ';'), 'none') from pg_hba_file_rules where error is not null"
  const [found] = sql(server, errors)
  if (found !== 'none') throw new Error(`pg_hba.conf is wrong: ${found}`)
  sql(server, 'select pg_reload_conf()')
}

function newKey(path: string): string[] {
  return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', path]
}

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { libpqEnvironment } from './libpq-environment.ts'
import { findServer } from './server-place.ts'

test('libpqEnvironment() leads to the chosen host, with the password of each database', () => {
  const home = mkdtempSync(join(tmpdir(), 'backstock-libpq-'))
  try {
    const lines = 'db2:5433:orders:me:of orders\ndb2:*:*:me:of others\n'
    writeFileSync(join(home, '.pgpass'), lines, { mode: 0o600 })
    const url = 'postgres://me@db1,db2:5433/postgres?sslmode=require&connect_timeout=7'
    const target = findServer({ url, env: { HOME: home }, systemUser: 'nobody' })
    const [first, second] = target.places
    assert.ok(first && second)
    const env = libpqEnvironment(target, second, 'orders')
    assert.deepEqual(env, {
      PGHOST: 'db2',
      PGPORT: '5433',
      PGUSER: 'me',
      PGDATABASE: 'orders',
      PGPASSWORD: 'of orders',
      PGCONNECT_TIMEOUT: '7',
      PGAPPNAME: 'backstock',
      PGSSLMODE: 'require',
    })
    assert.equal(libpqEnvironment(target, second, 'shop')['PGPASSWORD'], 'of others')
    // Nothing is known for this one, and the server may want nothing.
    assert.equal('PGPASSWORD' in libpqEnvironment(target, first, 'shop'), false)
  } finally {
    rmSync(home, { recursive: true })
  }
})

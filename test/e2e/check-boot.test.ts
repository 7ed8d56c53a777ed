/** `check --boot` of real PostgreSQL clusters: what is whole is proven, what is damaged is named. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { dropPostgres, makePostgres, postgresFolder, sql, type PostgresServer } from '../harness/postgres.ts'
import { dropHost, eventsOf, here, makeHost, type Event, type ShopHost } from '../harness/shop-host.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let host: ShopHost
/** Where copies are made. */
let scratch: string

function configOf(port: number): { sources: string } {
  const url = `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=disable`
  return { sources: `  orders: { kind: postgres, url: '${url}', checkpoint: fast }\n` }
}

before(
  async () => {
    if (skip !== false) return
    scratch = mkdtempSync(join(tmpdir(), 'backstock-scratch-'))
    chmodSync(scratch, 0o755)
    server = await makePostgres()
    host = makeHost(configOf(server.port))
    assert.equal((await here(host, ['init'])).exit, 0)
  },
  { timeout: 60_000 },
)

after(async () => {
  if (skip !== false) return
  dropHost(host)
  rmSync(scratch, { recursive: true, force: true })
  await dropPostgres(server)
})

async function boot(...flags: string[]): Promise<{ exit: number; events: Event[]; text: string }> {
  const { exit, stdout, stderr } = await here(host, [
    'check',
    '--boot',
    '--no-server',
    '--scratch',
    scratch,
    '--json',
    ...flags,
  ])
  assert.deepEqual(readdirSync(scratch), [], 'nothing is left')
  return { exit, events: eventsOf({ exit, stdout, stderr }), text: stdout + stderr }
}

test('a whole cluster is proven, whatever is set in it', { skip, timeout: 120_000 }, async () => {
  const space = join(server.dir, 'space')
  mkdirSync(space)
  const { uid, gid } = statSync(server.data)
  chownSync(space, uid, gid)
  sql(server, `create tablespace fast location '${space}'`)
  sql(
    server,
    'create table orders (id bigint primary key, note text) tablespace fast',
    'insert into orders select n, repeat(md5(n::text), 100) from generate_series(1, 5000) n',
    // Nothing that the source was told may keep anybody from looking.
    "create function no() returns event_trigger language plpgsql as 'begin raise exception ''no''; end'",
    'create event trigger never on ddl_command_start execute function no()',
    'alter event trigger never enable always',
  )
  sql(server, 'alter database postgres set default_transaction_read_only = on')
  assert.equal((await here(host, ['backup', 'orders'])).exit, 0)
  const { exit, text } = await boot()
  assert.equal(exit, 0, text)
})

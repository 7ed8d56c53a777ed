/** What goes wrong after the snapshot is there is told by the program, and does not take the backup away. */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropHost, eventOf, here, makeHost, putFile } from '../harness/shop-host.ts'

test('backup warns of what failed behind its snapshot, also with --json, and ends with 0', async (t) => {
  const host = makeHost()
  t.after(() => dropHost(host))
  putFile(host, 'media/a.txt', 'a')
  assert.equal((await here(host, ['init'])).exit, 0)
  assert.equal((await here(host, ['backup'])).exit, 0)
  const [repository = ''] = readdirSync(join(host.dir, 'cache'))
  const lock = join(host.dir, 'cache', repository, '.state.lock')
  rmSync(lock)
  mkdirSync(lock)
  const people = await here(host, ['backup'])
  assert.equal(people.exit, 0, people.stderr)
  assert.match(people.stderr, /warning: media: Cannot remember the snapshot on this host: /)
  const machine = await here(host, ['backup', '--json'])
  assert.equal(machine.exit, 0, machine.stderr)
  assert.match(String(eventOf(machine, 'summary')['warnings']), /Cannot remember the snapshot/)
})

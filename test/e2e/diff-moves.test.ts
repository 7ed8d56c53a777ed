/** How `backstock diff` tells a file that moved. */
import assert from 'node:assert/strict'
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { dropHost, eventOf, eventsOf, here, makeHost, putFile } from '../harness/shop-host.ts'

test('diff shows a moved file once, with where it was, and counts no bytes for it', async () => {
  const host = makeHost()
  try {
    putFile(host, 'media/old name', 'x'.repeat(5000))
    putFile(host, 'media/gone', 'gone')
    assert.equal((await here(host, ['init'])).exit, 0)
    const backUp = async (): Promise<string> =>
      String(eventOf(await here(host, ['backup', '--json']), 'summary')['snapshot'])
    const first = await backUp()
    renameSync(join(host.media, 'old name'), join(host.media, 'new name'))
    renameSync(join(host.media, 'gone'), join(host.dir, 'gone'))
    const second = await backUp()
    const { stdout } = await here(host, ['diff', first, second])
    const lines = stdout.split('\n').map((line) => line.replaceAll(`${host.media}/`, ''))
    assert.ok(lines.includes('R old name -> new name (4.88 KiB)'), stdout)
    assert.match(stdout, /0 added, 1 removed, 0 changed, 1 moved, .*; 0 B new, 4 B gone/)
    const outcome = await here(host, ['diff', first, second, '--json'])
    const [moved, ...others] = eventsOf(outcome).filter(({ change }) => change === 'moved')
    assert.deepEqual(others, [])
    assert.equal(moved?.['path'], join(host.media, 'new name'))
    assert.deepEqual(moved?.['from'], { path: join(host.media, 'old name') })
    const { moved: count, added, bytesAdded } = eventOf(outcome, 'summary')
    assert.deepEqual([count, added, bytesAdded], [1, 0, 0])
  } finally {
    dropHost(host)
  }
})

import { strict as assert } from 'node:assert'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { makeLogWorld, newShipper, shipPiece, type LogWorld } from '../../test/harness/logs.ts'
import { openHostFolder, type HostFolder } from './host-folder.ts'
import { loadLogTable, saveLogTable } from './log-cache.ts'
import type { LogTable } from './log-table.ts'
import { listLogs } from './logs.ts'

let world: LogWorld
let table: LogTable
let folder = ''
let host: HostFolder

before(async () => {
  world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  for (let at = 0n; at < 9n; at++)
    await shipPiece(shipper, at % 2n === 0n ? 'segment' : 'tail', { from: at * 10n, to: at * 10n + 10n })
  table = (await listLogs(world.access)).branches[0]!
  folder = mkdtempSync(join(tmpdir(), 'backstock-log-cache-'))
  host = openHostFolder(folder, world.kit.repository)
})
after(() => {
  rmSync(folder, { recursive: true })
})

const cacheFile = (): string => {
  const [name] = readdirSync(join(host.path, 'logs'))
  return join(host.path, 'logs', name!)
}

test('loadLogTable() gives back what saveLogTable() saved, and a listing reads no header twice', async () => {
  const { config } = world.access
  assert.equal(loadLogTable(host, config, table), undefined)
  saveLogTable(host, config, table)
  saveLogTable(host, config, table)
  assert.equal(readdirSync(join(host.path, 'logs')).length, 1)
  assert.deepEqual(loadLogTable(host, config, table), { ...table, rows: table.rows.subarray(0, 9 * 120) })
  const get = (): never => assert.fail('no header is read')
  const access = { ...world.access, store: { ...world.store, get } }
  const list = await listLogs(access, { known: (of) => loadLogTable(host, config, of) })
  assert.deepEqual(list.branches, [table])
})

test('loadLogTable() gives nothing of a damaged file, or of another writer', () => {
  const { config } = world.access
  saveLogTable(host, config, table)
  const path = cacheFile()
  const bytes = readFileSync(path)
  for (let at = 0; at < bytes.length; at++) {
    const cut = bytes.subarray(0, at)
    writeFileSync(path, cut)
    assert.equal(loadLogTable(host, config, table), undefined, `cut at ${at}`)
    const flipped = Buffer.from(bytes)
    flipped[at]! ^= 16
    writeFileSync(path, flipped)
    assert.equal(loadLogTable(host, config, table), undefined, `byte ${at}`)
  }
  writeFileSync(path, bytes)
  assert.ok(loadLogTable(host, config, table))
  const domains = config.domains.map((domain) => ({
    ...domain,
    writer: { ...domain.writer, signing: 'ab'.repeat(32) },
  }))
  assert.equal(loadLogTable(host, { ...config, domains }, table), undefined)
})

test('saveLogTable() says when it cannot write, and leaves nothing behind', () => {
  const blocked = openHostFolder(folder, 'blocked')
  writeFileSync(join(blocked.path, 'logs'), 'a file')
  chmodSync(join(blocked.path, 'logs'), 0o600)
  assert.throws(
    () => saveLogTable(blocked, world.access.config, table),
    (error) => isFailure(error, 'host.file'),
  )
  assert.deepEqual(readdirSync(blocked.path), ['logs'])
})

/**
 * How a run with --json that fails as a whole ends: an error event, then the one summary, for each command
 * alike.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import {
  dropHost,
  type Event,
  eventOf,
  eventsOf,
  here,
  makeHost,
  putFile,
  type ShopHost,
} from '../harness/shop-host.ts'

let host: ShopHost

before(async () => {
  host = makeHost()
  putFile(host, 'media/a.txt', 'a')
  assert.equal((await here(host, ['init'])).exit, 0)
  assert.equal((await here(host, ['backup'])).exit, 0)
  mkdirSync(join(host.dir, 'full'))
  writeFileSync(join(host.dir, 'full/mine'), 'mine')
})
after(() => dropHost(host))

/** Runs with --json, and holds the end to the rule. Returns its exit status and the code of the failure. */
async function failed(argv: readonly string[], command: string | undefined): Promise<[number, unknown]> {
  const outcome = await here(host, [...argv, '--json'])
  const events = eventsOf(outcome)
  const [error, summary]: (Event | undefined)[] = events.slice(-2)
  const { code, message, exit } = error ?? {}
  assert.equal(error?.['type'], 'error', outcome.stdout)
  const given = command === undefined ? {} : { command }
  assert.deepEqual(summary, { type: 'summary', ...given, code, message, exit }, argv.join(' '))
  assert.equal(events.filter(({ type }) => type === 'summary').length, 1)
  assert.equal(exit, outcome.exit)
  return [outcome.exit, code]
}

test('a restore that fails as a whole ends with a summary', async () => {
  const restore = (...argv: string[]): Promise<[number, unknown]> =>
    failed(['restore', 'media', ...argv], 'restore')
  assert.deepEqual(await restore('--to', 'x', '--snapshot', '00000000'), [1, 'repo.nosnapshot'])
  assert.deepEqual(await restore('--to', 'full'), [25, 'restore.refused'])
  assert.deepEqual(await restore('--to', 'x', '--path', 'nowhere'), [25, 'restore.refused'])
  assert.deepEqual(await restore('--to', 'full/mine/x'), [1, 'restore.failed'])
})

test('so does one whose snapshot is damaged, and one without a store', async () => {
  const repo = join(host.dir, 'repo')
  const names = readdirSync(repo, { recursive: true, encoding: 'utf8' })
  const config = join(repo, names.find((name) => /^config\/\d+$/.test(name)) ?? '')
  renameSync(config, `${config}.kept`)
  writeFileSync(config, 'damaged')
  assert.deepEqual(await failed(['restore', 'media', '--to', 'x'], 'restore'), [23, 'repo.corrupt'])
  chmodSync(config, 0o600)
  renameSync(`${config}.kept`, config)
  renameSync(repo, `${repo}-away`)
  for (const [command, ...argv] of [
    ['restore', 'media', '--to', 'x'],
    ['backup'],
    ['check'],
    ['snapshots'],
    ['status'],
    ['ls', 'latest'],
    ['cat', 'latest', '/x'],
  ])
    assert.deepEqual(await failed([command ?? '', ...argv], command), [22, 'storage.offline'])
  renameSync(`${repo}-away`, repo)
  assert.deepEqual(await failed(['backup', 'nothing'], 'backup'), [20, 'usage.invalid'])
})

test('a run whose command is not understood ends with a summary of none; a success has no code', async () => {
  for (const argv of [['bakup'], ['restore', 'media'], ['restore', 'media', '--to', 'x', '--kind', 'y']])
    assert.deepEqual(await failed(argv, undefined), [20, 'usage.invalid'])
  for (const argv of [['backup'], ['check'], ['restore', 'media', '--to', 'good']])
    assert.equal(eventOf(await here(host, [...argv, '--json']), 'summary')['code'], undefined)
})

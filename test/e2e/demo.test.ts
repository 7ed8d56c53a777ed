/** The demo as a newcomer runs it, and that its proof can fail: a changed byte must not pass for equal. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../src/base/clock.ts'
import { runDemo } from '../../src/cli/commands/demo.ts'
import { compareManifests, takeManifest } from '../../src/cli/demo/manifest.ts'
import { buildShop, passDay } from '../../src/cli/demo/shop.ts'
import { runHere } from '../harness/cli-world.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const scale = '0.05'

function emptyFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-demo-test-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('`demo` proves every day, shows a table, and leaves nothing behind', (t) => {
  const dir = emptyFolder(t)
  const argv = [main, 'demo', '--scale', scale, '--dir', join(dir, 'not', 'yet there')]
  const env = { PATH: process.env['PATH'], HOME: dir, XDG_CACHE_HOME: dir }
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { env, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.doesNotMatch(stdout, /NaN|undefined|\[1m|NOT/)
  const rows = stdout.split('\n').filter((line) => /^ {2}[1-4] {2}/.test(line))
  const kinds = rows.map((row) => row.trim().split(/ +/)[1])
  assert.deepEqual(kinds, ['full', 'incremental', 'differential', 'incremental'], stdout)
  const needs = rows.map((row) => /(\d) sets? /.exec(row)?.[1])
  assert.deepEqual(needs, ['1', '2', '2', '3'])
  assert.equal(stdout.match(/^\$ backstock restore .* files equal, .* orders, /gm)?.length, 4, stdout)
  assert.match(stdout, /--delta .*written; \d+ files equal/)
  assert.match(stdout, /cat exports:latest .*refused, exit 12/)
  assert.match(stdout, /check --read-data .*all sound/)
  assert.match(stdout, /DELETE without WHERE +(\d+\s\d+) +\1 +0 /)
  const [, acknowledged, back, lost] =
    /host lost +([\d\u00a0]+) +([\d\u00a0]+) +([\d\u00a0]+) /.exec(stdout) ?? []
  const [all, came, gone] = [acknowledged, back, lost].map((text = '') =>
    Number(text.replaceAll('\u00a0', '')),
  )
  assert.equal(came! + gone!, all)
  assert.ok(came! > 0)
  assert.ok(stdout.split('\n').length <= 55, 'it must stay short')
  assert.deepEqual(readdirSync(dir), [])
})

test('the proof finds one changed byte: exit 1, the file is named, the folder is gone', async (t) => {
  const dir = emptyFolder(t)
  let restores = 0
  const meddle = (restored: string): void => {
    restores++
    if (restores !== 2) return
    const file = join(restored, 'exports/products.csv')
    const bytes = readFileSync(file)
    bytes[100] = (bytes[100] ?? 0) ^ 1
    writeFileSync(file, bytes)
  }
  const modules = {
    demo: async () => ({ run: (context, input) => runDemo(context, input, { meddle }) }),
  } satisfies Parameters<typeof runHere>[2]
  const argv = ['--json', 'demo', '--scale', scale, '--dir', dir]
  const { exit, stdout, stderr } = await runHere(argv, { clock: systemClock }, modules)
  assert.equal(exit, 1, stderr)
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  const findings = events.filter(({ type }) => type === 'finding')
  const [finding] = findings
  assert.equal(findings.length, 1)
  assert.match(String(finding?.['message']), /^day 2: "exports\/products\.csv" differs in .*content$/)
  const points = events.filter(({ type }) => type === 'snapshot')
  assert.deepEqual(
    points.map(({ kind, packSets }) => [kind, packSets]),
    [
      ['full', 1],
      ['incremental', 2],
      ['differential', 2],
      ['incremental', 3],
    ],
  )
  const [full, incremental] = points
  assert.ok(Number(incremental?.['bytesStored']) < Number(full?.['bytesStored']) / 2)
  const { type, command, wrong, catExit } = events.at(-1) ?? {}
  assert.deepEqual([type, command, wrong, catExit], ['summary', 'demo', 1, 12])
  assert.equal(restores, 5)
  assert.deepEqual(readdirSync(dir), [])
})

test('Ctrl-C ends the demo with 130 and leaves nothing behind', async (t) => {
  const dir = emptyFolder(t)
  const argv = [main, 'demo', '--scale', scale, '--dir', dir]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'ignore'] })
  const exited = once(child, 'exit')
  let said = ''
  for await (const part of child.stdout) {
    said += String(part)
    if (!said.includes('backup shop --kind full')) continue
    child.kill('SIGINT')
    break
  }
  const [exit] = (await exited) as [number | null]
  assert.equal(exit, 130, said)
  assert.deepEqual(readdirSync(dir), [])
})

test('a wrong size or place is refused before anything is written', async (t) => {
  const dir = emptyFolder(t)
  const none = await runHere(['demo', '--scale', '0', '--dir', dir])
  assert.equal(none.exit, 20)
  writeFileSync(join(dir, 'file'), '')
  const wrong = await runHere(['demo', '--dir', join(dir, 'file')])
  assert.equal(wrong.exit, 1)
  assert.match(wrong.stderr, /Cannot build the demo in ".*\/file"/)
})

test('the shop is the same in each run, and each day changes it', async (t) => {
  const dir = emptyFolder(t)
  const { signal } = new AbortController()
  const contents: string[][] = []
  for (const name of ['one', 'two']) {
    const shop = await buildShop(join(dir, name), 0.01, signal)
    const first = await takeManifest(shop.folder, signal)
    await passDay(shop)
    const second = await takeManifest(shop.folder, signal)
    assert.ok(compareManifests(first, second, 'refused').length > 5)
    contents.push([...second].map(([path, { content }]) => `${path} ${content}`))
  }
  assert.deepEqual(contents[0], contents[1])
})

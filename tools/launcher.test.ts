/** Starts bin/backstock as a clone, as an installed package, and on a Node that claims to be old. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const BUNDLED = `node-${process.platform}-${process.arch}`

/** Tells where it runs and does what its first argument says. */
const MAIN = `
const [order, value] = process.argv.slice(2)
if (order === 'wait' || order === 'stay') {
  if (order === 'stay') process.on('SIGUSR2', () => {})
  process.on(value, () => process.exit(7))
  setInterval(() => {}, 1000)
}
console.log(JSON.stringify({ pid: process.pid, node: process.version, args: process.argv.slice(2) }))
if (order === 'exit') process.exitCode = Number(value)
if (order === 'die') process.kill(process.pid, value)
if (order === 'warn') process.emitWarning('from a test', value)
if (order === 'fail') throw new Error('from a test')
`

const scratch = mkdtempSync(join(tmpdir(), 'backstock-launcher-'))
after(() => rmSync(scratch, { recursive: true }))

const oldNode = join(scratch, 'old-node.cjs')
writeFileSync(
  oldNode,
  `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.11.0' } })`,
)

/** A package folder with a copy of bin/ and one entry file; its launcher. */
function makePackage(name: string, entry: string): string {
  const folder = join(scratch, name)
  mkdirSync(join(folder, entry, '..'), { recursive: true })
  cpSync(join(ROOT, 'bin'), join(folder, 'bin'), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, entry), MAIN)
  return join(folder, 'bin/backstock')
}

function provideBundledNode(folder: string): void {
  mkdirSync(join(scratch, folder, 'node_modules'), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules', BUNDLED), join(scratch, folder, 'node_modules', BUNDLED))
}

/** Node's own flags go before the launcher, as `node --require old-node.cjs bin/backstock`. */
function start(launcher: string, args: string[], flags: string[] = []): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [...flags, launcher, ...args], { cwd: tmpdir(), encoding: 'utf8' })
}

interface Told {
  pid: number
  node: string
  args: string[]
}

function told({ stdout }: { stdout: string }): Told {
  return JSON.parse(stdout) as Told
}

const clone = makePackage('clone', 'src/cli/main.ts')
provideBundledNode('clone')

test('a new Node runs the sources of a clone in the same process', () => {
  const run = start(clone, ['exit', '3', 'two words'])
  assert.equal(run.status, 3)
  assert.equal(told(run).pid, run.pid)
  assert.deepEqual(told(run).args, ['exit', '3', 'two words'])
})

test('an old Node hands over to the bundled one: arguments, output and exit status', () => {
  const run = start(clone, ['exit', '3', 'two words'], ['--require', oldNode])
  assert.equal(run.status, 3)
  assert.notEqual(told(run).pid, run.pid)
  assert.deepEqual(told(run).args, ['exit', '3', 'two words'])
})

test('an old Node dies by the signal that the bundled one died by', () => {
  const run = start(clone, ['die', 'SIGKILL'], ['--require', oldNode])
  assert.equal(run.signal, 'SIGKILL')
})

/** An old Node with a program that waits for one signal, and has begun to. */
async function startWaiting(waitsFor: string, order = 'wait'): Promise<ChildProcess> {
  const args = ['--require', oldNode, clone, order, waitsFor]
  const launcher = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(launcher.stdout, 'data')
  return launcher
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  test(`an old Node hands ${signal} on, as one that does not count`, { timeout: 20_000 }, async () => {
    const launcher = await startWaiting('SIGUSR2')
    launcher.kill(signal)
    assert.deepEqual(await once(launcher, 'exit'), [7, null])
  })

  test(`an old Node dies by the ${signal} that came too early`, { timeout: 20_000 }, async () => {
    const launcher = await startWaiting('SIGWINCH')
    launcher.kill(signal)
    assert.deepEqual(await once(launcher, 'exit'), [null, signal])
  })
}

test('an old Node hands on as itself only a signal that is no repetition', { timeout: 20_000 }, async () => {
  const launcher = await startWaiting('SIGTERM', 'stay')
  const begun = performance.now()
  const repeating = setInterval(() => launcher.kill('SIGTERM'), 50)
  try {
    assert.deepEqual(await once(launcher, 'exit'), [7, null])
    assert.ok(performance.now() - begun >= 500)
  } finally {
    clearInterval(repeating)
  }
})

test('an old Node ends by SIGUSR2 instead of handing on what means its own end', async () => {
  const args = ['--require', oldNode, clone, 'wait', 'SIGUSR2']
  const launcher = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const [line] = (await once(launcher.stdout, 'data')) as [Buffer]
  launcher.kill('SIGUSR2')
  try {
    assert.deepEqual(await once(launcher, 'exit'), [null, 'SIGUSR2'])
  } finally {
    process.kill(told({ stdout: line.toString() }).pid)
  }
})

test('an installed package runs dist/ through a symlink, with the Node hoisted above it', () => {
  makePackage('installed/node_modules/backstock', 'dist/cli/main.js')
  provideBundledNode('installed')
  const link = join(scratch, 'link')
  symlinkSync(join(scratch, 'installed/node_modules/backstock/bin/backstock'), link)
  assert.equal(start(link, ['exit', '4']).status, 4)
  assert.equal(start(link, ['exit', '4'], ['--require', oldNode]).status, 4)
})

test('sources go before a stale dist/ in a clone', () => {
  const launcher = makePackage('both', 'src/cli/main.ts')
  mkdirSync(join(scratch, 'both/dist/cli'), { recursive: true })
  writeFileSync(join(scratch, 'both/dist/cli/main.js'), 'process.exit(99)')
  assert.equal(start(launcher, ['exit', '5']).status, 5)
})

test('an old Node without a bundled one says what is needed', () => {
  const run = start(makePackage('bare', 'src/cli/main.ts'), [], ['--require', oldNode])
  assert.equal(run.status, 1)
  assert.match(run.stderr, /^backstock needs Node\.js 24\.12 or newer: this is v[\d.]+, and no bundled one/)
})

test('only experimental warnings are hidden', () => {
  assert.equal(start(clone, ['warn', 'ExperimentalWarning']).stderr, '')
  assert.match(start(clone, ['warn', 'DeprecationWarning']).stderr, /DeprecationWarning: from a test/)
})

test('a program that fails while it loads ends with status 1', () => {
  const run = start(clone, ['fail'])
  assert.equal(run.status, 1)
  assert.match(run.stderr, /Error: from a test/)
})

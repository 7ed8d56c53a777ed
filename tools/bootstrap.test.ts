/**
 * Runs scripts/bootstrap.cjs in scratch clones with a stand-in for npm and apt-get: no network, no root
 * needed.
 */
import assert from 'node:assert/strict'
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const scratch = mkdtempSync(join(tmpdir(), 'backstock-bootstrap-'))
after(() => rmSync(scratch, { recursive: true }))

const PACKAGES = {
  '': { name: 'shop' },
  'node_modules/zod': { version: '1.0.0', integrity: 'sha512-a' },
  'node_modules/elsewhere': { version: '1.0.0', optional: true, os: ['aix'], cpu: ['ppc64'] },
}

/** Installs what the lock of the folder says, once it has taken its time; counts its runs. */
const NPM_INSTALLS = `
const fs = require('fs')
fs.appendFileSync('npm-runs', process.argv.slice(2).join(' ') + '\\n')
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
fs.mkdirSync('node_modules/zod', { recursive: true })
fs.writeFileSync('node_modules/zod/package.json', '{}')
fs.copyFileSync('package-lock.json', 'node_modules/.package-lock.json')
`

interface Clone {
  folder: string
  env: NodeJS.ProcessEnv
}

function makeClone(name: string, npm: string): Clone {
  const folder = join(scratch, name)
  mkdirSync(join(folder, 'scripts'), { recursive: true })
  copyFileSync(join(ROOT, 'scripts/bootstrap.cjs'), join(folder, 'scripts/bootstrap.cjs'))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify({ packages: PACKAGES }))
  writeFileSync(join(folder, 'npm-cli.js'), npm)
  const env = {
    ...process.env,
    npm_execpath: join(folder, 'npm-cli.js'),
    npm_node_execpath: process.execPath,
  }
  return { folder, env }
}

function bootstrap({ folder, env }: Clone, ...args: string[]): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, ['scripts/bootstrap.cjs', ...args], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
}

function npmRuns({ folder }: Clone): number {
  const record = join(folder, 'npm-runs')
  return existsSync(record) ? readFileSync(record, 'utf8').trim().split('\n').length : 0
}

test('installs once, then finds nothing to do and says nothing', () => {
  const clone = makeClone('once', NPM_INSTALLS)
  const first = bootstrap(clone)
  assert.equal(first.status, 0, first.stderr)
  assert.match(first.stderr, /installing 1 packages/)
  const second = bootstrap(clone)
  assert.deepEqual([second.status, second.stdout, second.stderr], [0, '', ''])
  assert.equal(npmRuns(clone), 1)
})

test('installs again when the lock changed or a package vanished', () => {
  const clone = makeClone('again', NPM_INSTALLS)
  bootstrap(clone)
  rmSync(join(clone.folder, 'node_modules/zod'), { recursive: true })
  bootstrap(clone)
  assert.equal(npmRuns(clone), 2)
  const lock = readFileSync(join(clone.folder, 'package-lock.json'), 'utf8')
  writeFileSync(
    join(clone.folder, 'package-lock.json'),
    lock.replace('"1.0.0","integrity"', '"1.0.1","integrity"'),
  )
  bootstrap(clone)
  assert.equal(npmRuns(clone), 3)
})

test('of two at once one installs and the other waits', async () => {
  const clone = makeClone('two', NPM_INSTALLS)
  const starts = [1, 2].map(() =>
    spawn(process.execPath, ['scripts/bootstrap.cjs'], {
      cwd: clone.folder,
      env: clone.env,
      stdio: 'ignore',
    }),
  )
  const exits = await Promise.all(starts.map((child) => once(child, 'exit')))
  assert.deepEqual(exits, [
    [0, null],
    [0, null],
  ])
  assert.equal(npmRuns(clone), 1)
})

test('takes over the lock of a process that died', () => {
  const clone = makeClone('dead', NPM_INSTALLS)
  const { pid } = spawnSync(process.execPath, ['--version'])
  mkdirSync(join(clone.folder, '.tmp'))
  writeFileSync(join(clone.folder, '.tmp/bootstrap.lock'), String(pid))
  assert.equal(bootstrap(clone).status, 0)
  assert.equal(existsSync(join(clone.folder, '.tmp/bootstrap.lock')), false)
})

test('says that the registry cannot be reached', () => {
  const run = bootstrap(makeClone('offline', `console.error('npm error code ENOTFOUND'); process.exit(1)`))
  assert.equal(run.status, 1)
  assert.match(run.stderr, /bootstrap: Cannot install packages: the npm registry cannot be reached/)
})

test('says that npm is missing', () => {
  const clone = makeClone('no-npm', '')
  const env = { ...clone.env, npm_execpath: undefined, PATH: scratch }
  const run = bootstrap({ ...clone, env })
  assert.equal(run.status, 1)
  assert.match(run.stderr, /bootstrap: Cannot install packages: npm was not found/)
})

test('does not believe an npm that ends well and installs nothing', () => {
  const run = bootstrap(makeClone('lazy', ''))
  assert.equal(run.status, 1)
  assert.match(run.stderr, /left out node_modules\/zod/)
})

test('names the tools that tests need and goes on when it cannot install them', () => {
  const clone = makeClone('tools', NPM_INSTALLS)
  bootstrap(clone)
  const run = bootstrap({ ...clone, env: { ...clone.env, PATH: scratch } }, '--test')
  assert.equal(run.status, 0)
  assert.match(run.stderr, /not found: rsync, setfattr, setfacl.*apt-get install rsync attr acl/)
})

test('asks for no tools unless told to', () => {
  const clone = makeClone('plain', NPM_INSTALLS)
  bootstrap(clone)
  assert.equal(bootstrap({ ...clone, env: { ...clone.env, PATH: scratch } }).stderr, '')
})

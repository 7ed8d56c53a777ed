/**
 * Makes a fresh clone ready, so that `npm test` and `npm run demo` are each one command: installs the
 * packages of package-lock.json when node_modules does not hold exactly them, and names or installs the
 * system tools in use.
 *
 * ```
 * node scripts/bootstrap.cjs             the packages
 * node scripts/bootstrap.cjs --test      and the tools that tests run
 * node scripts/bootstrap.cjs --bench     and the programs that benches compare with
 * ```
 *
 * Plain CommonJS that Node 14 can run, since it runs before anything is installed. Quiet when nothing is to
 * do. Missing packages end the run (exit 1); a missing system tool is named, and the tests that need it are
 * skipped.
 */
'use strict'
const { spawnSync } = require('child_process')
const fs = require('fs')
const path = require('path')

const ROOT = path.join(__dirname, '..')
const NODE_MAJOR_MIN = 24
const NODE_MINOR_MIN = 12
const LOCK_WAIT_MS_MAX = 15 * 60 * 1000
const LOCK_POLL_MS = 200

const APT = { command: 'apt-get', debian: 'apt' }
/** Commands that prove a Debian package is there. */
const TEST_TOOLS = [
  { command: 'rsync', debian: 'rsync' },
  { command: 'setfattr', debian: 'attr' },
  { command: 'setfacl', debian: 'acl' },
  { command: 'zsh', debian: 'zsh' },
  { command: 'fish', debian: 'fish' },
  { command: 'pg_createcluster', debian: 'postgresql' },
  { command: 'faketime', debian: 'faketime' },
]
const BENCH_TOOLS = [
  { command: 'restic', debian: 'restic' },
  { command: 'borg', debian: 'borgbackup' },
  { command: 'pgbackrest', debian: 'pgbackrest' },
]

main(process.argv.slice(2))

function main(args) {
  const tools = []
  if (args.includes('--test') || args.includes('--bench')) tools.push(...TEST_TOOLS)
  if (args.includes('--bench')) tools.push(...BENCH_TOOLS)
  if (missingPackages().length > 0 || missingTools(tools).length > 0) {
    waitForLock()
    installPackages()
    installTools(tools)
  }
  checkNode()
}

/**
 * Packages of package-lock.json that node_modules does not hold in that version. npm keeps its own record of
 * what it installed, written last; so an interrupted install is seen, and a package added by hand costs no
 * second install.
 */
function missingPackages() {
  const wanted = readJson(path.join(ROOT, 'package-lock.json'))
  if (wanted === undefined)
    fail('Cannot install: package-lock.json is missing or broken (restore it from git).')
  const record = readJson(path.join(ROOT, 'node_modules', '.package-lock.json'))
  const installed = record === undefined ? {} : record.packages
  return Object.keys(wanted.packages).filter((key) => {
    const entry = wanted.packages[key]
    if (key === '' || (entry.optional && !isForThisMachine(entry))) return false
    const there = installed[key]
    const same = there !== undefined && there.version === entry.version && there.integrity === entry.integrity
    return !same || !fs.existsSync(path.join(ROOT, key, 'package.json'))
  })
}

/**
 * Whether an optional package must be here: it names this system. One that names none, or a C library, is
 * npm's choice.
 */
function isForThisMachine(entry) {
  const names = (list, value) => [].concat(list || []).includes(value)
  return entry.libc === undefined && names(entry.os, process.platform) && names(entry.cpu, process.arch)
}

/**
 * `npm install --no-save` and not `npm ci`: it installs what the lock says as well, but adds only what is
 * missing, so that work going on in the same folder is not cut off, and it accepts a lock made where packages
 * for other systems could not be had, which `npm ci` refuses. That node_modules then equals the lock is
 * checked by ourselves.
 */
function installPackages() {
  const missing = missingPackages()
  if (missing.length === 0) return
  say(`installing ${missing.length} packages of package-lock.json (npm install --no-save)`)
  const run = npm(['install', '--no-save', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'])
  if (run.error !== undefined && run.error.code === 'ENOENT') {
    fail(
      'Cannot install packages: npm was not found (install Node.js together with npm, then run this again).',
    )
  }
  if (run.status !== 0) {
    process.stderr.write(run.stderr)
    if (
      /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ENOTCACHED/.test(
        run.stderr,
      )
    ) {
      fail(
        'Cannot install packages: the npm registry cannot be reached (go online, or check the proxy of npm).',
      )
    }
    const end = run.status === null ? run.signal : `exit code ${run.status}`
    fail(`Cannot install packages: npm ended with ${end}.`)
  }
  const still = missingPackages()
  if (still.length > 0)
    fail(`npm ended well but left out ${still.join(', ')} (is "omit" set in npm's configuration?).`)
}

/** Runs the npm that called us, by the Node it runs on: the Node in node_modules is about to be replaced. */
function npm(args) {
  const options = { cwd: ROOT, stdio: ['ignore', 'inherit', 'pipe'], encoding: 'utf8', maxBuffer: 64 << 20 }
  const script = process.env.npm_execpath
  const isNpm = script !== undefined && /npm-cli\.c?js$/.test(script)
  if (isNpm) return spawnSync(process.env.npm_node_execpath || process.execPath, [script, ...args], options)
  const own = path.join(ROOT, 'node_modules', '.bin')
  const search = (process.env.PATH || '')
    .split(path.delimiter)
    .filter((folder) => path.resolve(folder) !== own)
  const env = Object.assign({}, process.env, { PATH: search.join(path.delimiter) })
  return spawnSync('npm', args, Object.assign(options, { env, shell: process.platform === 'win32' }))
}

/** node_modules brings a Node for Linux; elsewhere the one on the machine must do. */
function checkNode() {
  const bundled = path.join(ROOT, 'node_modules', `node-${process.platform}-${process.arch}`)
  if (fs.existsSync(bundled)) return
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > NODE_MAJOR_MIN || (major === NODE_MAJOR_MIN && minor >= NODE_MINOR_MIN)) return
  const needed = `Node.js ${NODE_MAJOR_MIN}.${NODE_MINOR_MIN} or newer`
  fail(`${needed} is needed on ${process.platform}-${process.arch}: this is ${process.version}.`)
}

function missingTools(tools) {
  const folders = (process.env.PATH || '').split(path.delimiter)
  return tools.filter(({ command }) => !folders.some((folder) => fs.existsSync(path.join(folder, command))))
}

function installTools(tools) {
  const missing = missingTools(tools)
  if (missing.length === 0) return
  const names = missing.map((tool) => tool.debian)
  const canInstall =
    process.getuid !== undefined && process.getuid() === 0 && missingTools([APT]).length === 0
  if (canInstall) {
    say(`installing Debian packages: ${names.join(' ')} (apt-get install)`)
    apt(['update'])
    apt(['install', '--yes', '--no-install-recommends', ...names])
  }
  const still = missingTools(tools)
  if (still.length === 0) return
  const commands = still.map((tool) => tool.command).join(', ')
  const packages = still.map((tool) => tool.debian).join(' ')
  say(`not found: ${commands}. What needs them is skipped. On Debian: sudo apt-get install ${packages}`)
}

function apt(args) {
  const env = Object.assign({}, process.env, { DEBIAN_FRONTEND: 'noninteractive' })
  const run = spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...args], {
    env,
    encoding: 'utf8',
  })
  if (run.status !== 0) process.stderr.write(`${run.stdout || ''}${run.stderr || ''}`)
}

/**
 * One installer at a time in one clone: the others wait, then find the work done. The lock is a file with the
 * holder's process number, outside node_modules since that is what changes; a dead holder's lock is taken
 * over.
 */
function waitForLock() {
  const lock = path.join(ROOT, '.tmp', 'bootstrap.lock')
  fs.mkdirSync(path.dirname(lock), { recursive: true })
  const start = Date.now()
  for (let told = false; !takeLock(lock); told = true) {
    if (!told) say('waiting for another install in this folder to end')
    if (Date.now() - start > LOCK_WAIT_MS_MAX)
      fail(`Gave up waiting for another install: delete ${lock} if none runs.`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_POLL_MS)
  }
  process.once('exit', () => fs.unlinkSync(lock))
}

function takeLock(lock) {
  try {
    fs.writeFileSync(lock, String(process.pid), { flag: 'wx', mode: 0o644 })
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') fail(`Cannot write ${lock}: ${error.message}`)
  }
  const holder = lockHolder(lock)
  if (holder === undefined || isAlive(holder)) return false
  // Move a dead holder's lock aside. If another was quicker, what we moved is a live lock: put it back.
  const aside = `${lock}.${process.pid}`
  try {
    fs.renameSync(lock, aside)
    if (lockHolder(aside) !== holder) fs.linkSync(aside, lock)
    fs.unlinkSync(aside)
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'EEXIST') throw error
  }
  return takeLock(lock)
}

/** Undefined while the holder has created its lock and not yet written its number. */
function lockHolder(lock) {
  try {
    return Number(fs.readFileSync(lock, 'utf8')) || undefined
  } catch (error) {
    if (error.code === 'ENOENT') return undefined
    throw error
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'))
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}

function say(text) {
  process.stderr.write(`bootstrap: ${text}\n`)
}

function fail(text) {
  say(text)
  process.exit(1)
}

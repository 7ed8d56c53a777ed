/** bin/backstock-archive, PostgreSQL's archive_command, as a server runs it: in its data folder, by a shell. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { makeInbox } from '../../src/sources/postgres/archive-inbox.ts'
import { fillDisk, mountDisk, unmountDisk } from '../harness/small-disk.ts'

const client = fileURLToPath(new URL('../../bin/backstock-archive', import.meta.url))
const NAME = '000000010000000000000001'
const NOBODY = 65_534
const isRoot = process.getuid?.() === 0
let dir: string
let data: string
let inbox: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-archive-'))
  chmodSync(dir, 0o755)
  data = join(dir, 'data')
  mkdirSync(join(data, 'pg_wal'), { recursive: true })
  mkdirSync(join(dir, 'spool', 'orders'), { recursive: true })
  inbox = makeInbox(join(dir, 'spool', 'orders'), 8)
})
afterEach(() => rmSync(dir, { recursive: true }))

function putLog(name: string, content: string | Buffer): void {
  writeFileSync(join(data, 'pg_wal', name), content)
}

interface How {
  readonly path?: string
  readonly to?: string
  readonly cwd?: string
  readonly program?: string
  readonly uid?: number
  /** Programs that take the place of others: name and text for a shell. */
  readonly instead?: Readonly<Record<string, string>>
}

/** What is started: a program, its arguments, and how. */
function call(name: string, how: How = {}) {
  const { path = `pg_wal/${name}`, to = inbox, cwd = data, program = client, uid, instead = {} } = how
  const bin = join(dir, 'instead')
  rmSync(bin, { recursive: true, force: true })
  mkdirSync(bin)
  for (const [word, text] of Object.entries(instead))
    writeFileSync(join(bin, word), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  const env = { PATH: `${bin}:${process.env['PATH']}` }
  return [program, [to, path, name], { cwd, env, ...(uid === undefined ? {} : { uid, gid: uid }) }] as const
}

function archive(name: string, how: How = {}): { status: number | null; stderr: string } {
  const { status, stderr } = spawnSync(...call(name, how))
  return { status, stderr: stderr.toString() }
}

/** It must fail so that PostgreSQL tries again: with a status of 1 to 125, and a reason. */
function refuses(name: string, reason: RegExp, how: How = {}): void {
  const before = held()
  const { status, stderr } = archive(name, how)
  assert.equal(status, 1, stderr)
  assert.match(stderr, /^backstock-archive: Cannot take ".*": /)
  assert.match(stderr, reason)
  assert.deepEqual(held(), before)
}

function held(): string[] {
  return readdirSync(inbox)
    .filter((name) => name !== '.backstock')
    .sort()
}

test('backstock-archive takes segments, partial ones, histories and backup labels whole', () => {
  const names = [NAME, `${NAME}.partial`, `${NAME}.00000028.backup`, '00000002.history']
  for (const name of names) {
    putLog(name, Buffer.alloc(1 << 20, name))
    assert.deepEqual(archive(name), { status: 0, stderr: '' })
    assert.deepEqual(readFileSync(join(inbox, name)), Buffer.alloc(1 << 20, name))
    assert.equal(statSync(join(inbox, name)).mode & 0o777, 0o640)
  }
  assert.deepEqual(held(), names.toSorted())
})

test('backstock-archive answers after file and folder are synced, in this order', () => {
  putLog(NAME, 'log')
  const log = join(dir, 'order')
  const noted = (word: string): string => `echo "${word} $*" >>${log}\nPATH=\${PATH#*:} exec ${word} "$@"`
  const instead = { dd: noted('dd'), ln: noted('ln'), sync: noted('sync') }
  assert.equal(archive(NAME, { instead }).status, 0)
  const [copy = '', publish = '', sync = '', ...others] = readFileSync(log, 'utf8').trimEnd().split('\n')
  assert.match(copy, /^dd .*conv=excl,fsync/)
  assert.match(publish, new RegExp(`^ln .*/${NAME}$`))
  assert.equal(sync, `sync ${inbox}`)
  assert.deepEqual(others, [])
})

test('backstock-archive takes the same again, and refuses other content under the same name', () => {
  putLog(NAME, 'log')
  assert.equal(archive(NAME).status, 0)
  const again = join(dir, 'again')
  const instead = { sync: `echo "$1" >>${again}`, dd: 'exit 9' }
  assert.deepEqual(archive(NAME, { instead }), { status: 0, stderr: '' })
  assert.equal(readFileSync(again, 'utf8'), `${join(inbox, NAME)}\n${inbox}\n`, 'who put it may have died')
  for (const other of ['lag', 'lo', 'logs']) {
    putLog(NAME, other)
    refuses(NAME, /is there already, with other content/)
  }
  assert.equal(readFileSync(join(inbox, NAME), 'utf8'), 'log')
})

test('backstock-archive refuses what is no file of the log, and what it is not run for', () => {
  putLog(NAME, 'log')
  writeFileSync(join(data, 'PG_VERSION'), '15')
  refuses('PG_VERSION', /no file of the log is called so/, { path: 'PG_VERSION' })
  refuses(NAME.toLowerCase().replace('1', 'a'), /no file of the log is called so/)
  refuses(`../${NAME}`, /no file of the log is called so/)
  refuses(NAME, /has another name/, { path: 'PG_VERSION' })
  refuses(NAME, /no file "pg_wal\/.*" in ".*" \(must be run in the data folder/, { cwd: dir })
  refuses('000000010000000000000002', /no file "pg_wal\/000000010000000000000002"/)
  const { status, stderr } = spawnSync(client, [inbox, NAME], { cwd: data, encoding: 'utf8' })
  assert.deepEqual([status, /2 arguments were given/.test(stderr)], [1, true])
})

test('backstock-archive is found by a symlink, and takes absolute paths', () => {
  putLog(NAME, 'log')
  const program = join(dir, 'by-link')
  symlinkSync(client, program)
  assert.equal(archive(NAME, { program, cwd: '/', path: join(data, 'pg_wal', NAME) }).status, 0)
  assert.deepEqual(held(), [NAME])
})

test('backstock-archive refuses an inbox that is missing, foreign, damaged or closed', () => {
  putLog(NAME, 'log')
  refuses(NAME, /no folder ".*" that user .* can see/, { to: join(dir, 'nowhere') })
  refuses(NAME, /is no inbox of Backstock/, { to: dir })
  writeFileSync(join(inbox, '.backstock'), 'x\n')
  refuses(NAME, /\.backstock" is damaged/)
  makeInbox(join(dir, 'spool', 'orders'), 8)
  chmodSync(inbox, 0o555)
  refuses(NAME, /may not be written by user/, isRoot ? { uid: NOBODY } : {})
  chmodSync(inbox, 0o2770)
})

test('backstock-archive refuses more than the inbox may hold, leftovers counted', () => {
  writeFileSync(join(inbox, `.${NAME}.1.tmp`), 'half')
  const names = [1, 2, 3, 4, 5, 6, 7, 8].map((nth) => `00000001000000000000000${nth}`)
  for (const name of names) putLog(name, name)
  for (const name of names.slice(0, 7)) assert.equal(archive(name).status, 0, name)
  refuses(names[7]!, /is full \(8 files\): does `backstock ship` run\?/)
})

test('backstock-archive says that the disk is full, and leaves nothing', (t) => {
  putLog(NAME, Buffer.alloc(1 << 20, 1))
  const disk = join(dir, 'disk')
  mkdirSync(disk)
  if (!mountDisk(disk, '2m')) {
    t.skip('this user may not mount')
    return
  }
  try {
    cpSync(inbox, join(disk, 'inbox'), { recursive: true })
    fillDisk(disk)
    inbox = join(disk, 'inbox')
    refuses(NAME, /No space left on device/)
  } finally {
    unmountDisk(disk)
  }
})

test('backstock-archive never says yes when a step failed, and goes on the next time', () => {
  putLog(NAME, Buffer.alloc(1 << 20, 1))
  refuses(NAME, /disk on fire/, { instead: { dd: 'echo "disk on fire" >&2; exit 1' } })
  refuses(NAME, /no links here/, { instead: { ln: 'echo "no links here" >&2; exit 1' } })
  const { status, stderr } = archive(NAME, { instead: { sync: 'echo "disk on fire" >&2; exit 1' } })
  assert.deepEqual([status, stderr], [1, `backstock-archive: Cannot take "${NAME}": disk on fire\n`])
  assert.deepEqual([archive(NAME).status, held()], [0, [NAME]])
})

test('backstock-archive may be killed at any step: the next run completes it', () => {
  putLog(NAME, Buffer.alloc(1 << 20, 1))
  const half = 'for word; do case $word in of=*) echo half >"${word#of=}";; esac; done\nkill -9 $PPID'
  const afterLink = 'PATH=${PATH#*:} ln "$@"\nkill -9 $PPID'
  for (const instead of [
    { dd: half },
    { ln: 'kill -9 $PPID' },
    { ln: afterLink },
    { sync: 'kill -9 $PPID' },
  ]) {
    assert.equal(archive(NAME, { instead }).status, null)
    const whole = held().filter((name) => !name.startsWith('.'))
    for (const name of whole) assert.equal(statSync(join(inbox, name)).size, 1 << 20)
    assert.equal(archive(NAME).status, 0)
    assert.deepEqual(readFileSync(join(inbox, NAME)), Buffer.alloc(1 << 20, 1))
    for (const name of held()) rmSync(join(inbox, name))
  }
})

test('backstock-archive runs several times at once: each name whole, one content for a name', async () => {
  const names = [1, 2, 3].map((nth) => `00000001000000000000000${nth}`)
  for (const name of names) putLog(name, Buffer.alloc(1 << 20, name))
  mkdirSync(join(data, 'other'))
  writeFileSync(join(data, 'other', NAME), Buffer.alloc(1 << 20, 'other'))
  const calls = names.flatMap((name) => [{ name }, { name }])
  const children = [...calls, { name: NAME, path: `other/${NAME}` }].map(({ name, ...how }) =>
    spawn(client, [inbox, 'path' in how ? how.path : `pg_wal/${name}`, name], { cwd: data, stdio: 'ignore' }),
  )
  const ends = await Promise.all(children.map(async (child) => (await once(child, 'close'))[0] as number))
  const content = readFileSync(join(inbox, NAME))
  const isOther = content.equals(Buffer.alloc(1 << 20, 'other'))
  assert.ok(isOther || content.equals(Buffer.alloc(1 << 20, NAME)))
  assert.deepEqual(ends, isOther ? [1, 1, 0, 0, 0, 0, 0] : [0, 0, 0, 0, 0, 0, 1])
  assert.deepEqual(held(), names)
})

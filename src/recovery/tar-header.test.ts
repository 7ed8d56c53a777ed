import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { feedTar, newTarReader, type TarMember } from '../sources/postgres/tar-reader.ts'
import { encodeTarHeader, TAR_END, tarPadding, type TarEntry } from './tar-header.ts'

const plain: TarEntry = {
  type: 'file',
  path: 'base/1/1259',
  target: '',
  bytes: 0,
  mode: 0o600,
  uid: 105,
  gid: 110,
  mtimeSeconds: 1_700_000_000,
  major: 0,
  minor: 0,
  owner: 'postgres',
}

function readBack(entry: TarEntry): TarMember {
  const members: TarMember[] = []
  const reader = newTarReader({ onMember: (member) => members.push(member), onBytes: () => {} })
  feedTar(reader, encodeTarHeader(entry))
  assert.equal(members.length, 1)
  return members[0]!
}

/** What the system's tar says of an archive. */
function listed(...parts: Buffer[]): string {
  const input = Buffer.concat([...parts, TAR_END])
  const env = { PATH: process.env['PATH'], TZ: 'UTC', LC_ALL: 'C' }
  return execFileSync('tar', ['-tv', '--numeric-owner', '-f', '-'], { input, encoding: 'utf8', env })
}

test('`encodeTarHeader()` writes what the reader of the same form reads', () => {
  const cases: Partial<TarEntry>[] = [
    {},
    { bytes: 8 * 1024 ** 3 - 1 },
    { bytes: 8 * 1024 ** 3 },
    { bytes: 2 ** 50 },
    { uid: 2_097_152, gid: 4_294_967_294 },
    { type: 'directory', path: 'pg_wal', mode: 0o700 },
    { type: 'symlink', path: 'pg_tblspc/16385', target: '/srv/cold', mode: 0o777 },
    { path: `${'p'.repeat(90)}/${'n'.repeat(99)}` },
  ]
  for (const each of cases) {
    const entry = { ...plain, ...each }
    const { type, path, target, bytes, mode, uid, gid, mtimeSeconds } = entry
    assert.deepEqual(readBack(entry), { type, path, target, bytes, mode, uid, gid, mtimeSeconds })
  }
})

test('the system tar reads long names, large sizes and old times', () => {
  const long = `${'d'.repeat(120)}/${'f'.repeat(200)}`
  const target = `/${'t'.repeat(150)}`
  const file = encodeTarHeader({ ...plain, path: long, bytes: 3, mtimeSeconds: -86_400 })
  const link = encodeTarHeader({ ...plain, type: 'symlink', path: 'link', target })
  const folder = encodeTarHeader({ ...plain, type: 'directory', path: long.slice(0, 120), mode: 0o755 })
  const text = listed(folder, file, Buffer.from('abc'), tarPadding(3), link)
  assert.match(text, new RegExp(`^drwxr-xr-x 105/110 .* ${'d'.repeat(120)}/$`, 'm'))
  assert.match(text, new RegExp(`^-rw------- 105/110 +3 1969-12-31 00:00 ${long}$`, 'm'))
  assert.match(text, new RegExp(`^lrw------- 105/110 .* link -> ${target}$`, 'm'))
})

test('`tarPadding()` fills blocks', () => {
  assert.deepEqual(
    [0, 1, 511, 512, 513].map((bytes) => tarPadding(bytes).length),
    [0, 511, 1, 0, 511],
  )
})

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setXattr } from '../../base/posix.ts'
import { applyMetadata, setMode } from './metadata.ts'
import { readEntry, readXattrs } from './stat.ts'

let dir: string

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-metadata-'))
  chmodSync(dir, 0o777)
})

after(() => rmSync(dir, { recursive: true }))

function newFile(name: string): string {
  const path = join(dir, name)
  writeFileSync(path, 'content')
  return path
}

/** Runs module code as a user without rights; as one already, in a process of its own all the same. */
function runAsNobody(code: string): string {
  const become =
    'if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534) }'
  return execFileSync(process.execPath, ['--input-type=module', '-e', `${code.replace('BECOME', become)}`], {
    encoding: 'utf8',
  })
}

test('`applyMetadata()` sets set-id bits and ACLs after the owner', () => {
  const path = newFile('acl')
  execFileSync('setfacl', ['-m', 'u:1234:rw', path])
  chmodSync(path, 0o6750)
  const entry = readEntry(path, 'acl')
  assert(entry !== undefined)
  const wanted = { ...entry, xattrs: readXattrs(path), mtime: 12345n }
  assert.deepEqual(
    wanted.xattrs.map((xattr) => xattr.name),
    ['system.posix_acl_access'],
  )
  const other = newFile('acl-restored')
  assert.deepEqual(applyMetadata('acl', other, wanted), [])
  const { ctime: _ctime, inode: _inode, ...restored } = readEntry(other, 'acl') ?? assert.fail()
  assert.partialDeepStrictEqual({ ...wanted, xattrs: [] }, restored)
  assert.deepEqual(readXattrs(other), wanted.xattrs)
})

test('`applyMetadata()` removes an ACL that was inherited', () => {
  execFileSync('setfacl', ['-d', '-m', 'u:1234:rwx', dir])
  const path = newFile('inherits')
  execFileSync('setfacl', ['-k', dir])
  assert.equal(readXattrs(path).length, 1)
  const entry = readEntry(path, 'inherits')
  assert(entry !== undefined)
  assert.deepEqual(applyMetadata('inherits', path, { ...entry, mode: 0o640 }), [])
  assert.deepEqual(readXattrs(path), [])
  assert.equal(statSync(path).mode & 0o7777, 0o640)
})

test('`applyMetadata()` as a user without rights reports the owner and leaves set-id bits out', () => {
  const path = join(dir, 'foreign')
  const said = runAsNobody(`
    import { writeFileSync } from 'node:fs'
    import { applyMetadata } from ${JSON.stringify(import.meta.resolve('./metadata.ts'))}
    import { readEntry } from ${JSON.stringify(import.meta.resolve('./stat.ts'))}
    BECOME
    writeFileSync(${JSON.stringify(path)}, 'content')
    const entry = readEntry(${JSON.stringify(path)}, 'foreign')
    const value = Buffer.from('x')
    const xattrs = [{ name: 'trusted.a', value }, { name: 'user.a', value }]
    const wanted = { ...entry, uid: 4321, mode: 0o6755, mtime: 5n, xattrs }
    console.log(JSON.stringify(applyMetadata('foreign', ${JSON.stringify(path)}, wanted)))`)
  assert.deepEqual(JSON.parse(said), [
    {
      path: 'foreign',
      code: 'EPERM',
      what: `cannot set the owner 4321:${statSync(path).gid}: operation not permitted`,
    },
    { path: 'foreign', code: 'EPERM', what: 'cannot set the attribute trusted.a: operation not permitted' },
  ])
  const restored = readEntry(path, 'foreign')
  assert.equal(restored?.mode, 0o755)
  assert.equal(restored?.mtime, 5n)
  assert.deepEqual(
    readXattrs(path).map((xattr) => xattr.name),
    ['user.a'],
  )
})

test('`setMode()` never changes what a symlink points to', () => {
  const path = newFile('target')
  chmodSync(path, 0o600)
  symlinkSync('target', join(dir, 'link'))
  assert.throws(() => setMode(join(dir, 'link'), 0o777))
  assert.equal(statSync(path).mode & 0o777, 0o600)
})

test('`applyMetadata()` gives owner and times to a symlink itself', () => {
  const path = newFile('behind')
  symlinkSync('behind', join(dir, 'owned'))
  const before = readEntry(path, 'behind')
  const link = readEntry(join(dir, 'owned'), 'owned')
  assert(link !== undefined)
  const uid = process.getuid?.() === 0 ? 1000 : link.uid
  assert.deepEqual(applyMetadata('owned', join(dir, 'owned'), { ...link, uid, mtime: 77n }), [])
  assert.deepEqual(readEntry(path, 'behind'), before)
  assert.partialDeepStrictEqual(readEntry(join(dir, 'owned'), 'owned'), { uid, mtime: 77n })
})

test('`readXattrs()` sorts by name', () => {
  const path = newFile('sorted')
  for (const name of ['user.b', 'user.a', 'user.c']) setXattr(path, name, Buffer.from(name))
  assert.deepEqual(
    readXattrs(path).map((xattr) => xattr.name),
    ['user.a', 'user.b', 'user.c'],
  )
  if (process.getuid?.() === 0) chownSync(path, 1000, 1000)
})

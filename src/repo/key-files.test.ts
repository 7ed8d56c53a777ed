import { strict as assert } from 'node:assert'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { readKitFile, readWriterFile, writeKitFile } from './key-files.ts'
import { formatKit, newKit } from './kit.ts'

const kit = newKit()
const fails = (code: Parameters<typeof isFailure>[1]) => (error: unknown) => isFailure(error, code)
let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'backstock-keys-'))
})
after(() => rm(folder, { recursive: true }))

test('writeKitFile() writes for the owner only, and leaves nothing else behind', async () => {
  const path = join(folder, 'identity.age')
  await writeKitFile(path, formatKit(kit))
  assert.equal((await stat(path)).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(folder), ['identity.age'])
  assert.deepEqual(await readKitFile(path), { key: kit, warnings: [], isLocked: false })
})

test('writeKitFile() never overwrites, and of two at once one wins', async () => {
  const path = join(folder, 'taken.age')
  await writeFile(path, 'mine')
  await assert.rejects(writeKitFile(path, formatKit(kit)), fails('host.file'))
  assert.equal(await readFile(path, 'utf8'), 'mine')
  const both = join(folder, 'both.age')
  const done = await Promise.allSettled([
    writeKitFile(both, formatKit(kit)),
    writeKitFile(both, formatKit(newKit())),
  ])
  assert.deepEqual(done.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected'])
  await readKitFile(both)
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.endsWith('.tmp')),
    [],
  )
})

test('writeKitFile() into no folder is host.file', async () => {
  await assert.rejects(writeKitFile(join(folder, 'none', 'x.age'), 'x'), fails('host.file'))
})

test('readKitFile() warns about a file that others may read', async () => {
  const path = join(folder, 'open.age')
  await writeFile(path, formatKit(kit))
  await chmod(path, 0o644)
  const { warnings } = await readKitFile(path)
  assert.match(warnings.join(), /open\.age.*other users/)
})

test('a missing file is key.missing, a folder host.file, a huge or foreign file key.invalid', async () => {
  await assert.rejects(readKitFile(join(folder, 'absent')), fails('key.missing'))
  await assert.rejects(readWriterFile(join(folder, 'absent')), fails('key.missing'))
  await assert.rejects(readKitFile(folder), fails('host.file'))
  const path = join(folder, 'huge')
  await writeFile(path, Buffer.alloc(200_000))
  await assert.rejects(readKitFile(path), fails('key.invalid'))
  await assert.rejects(readWriterFile(path), fails('key.invalid'))
})

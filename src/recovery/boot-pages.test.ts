import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { PAGE_BYTES } from '../sources/postgres/page-checksum.ts'
import { checkPageSums } from './boot-pages.ts'

test('checkPageSums() waits for no pipe and follows no link', { timeout: 20_000 }, async (t) => {
  const data = mkdtempSync(join(tmpdir(), 'backstock-pages-'))
  t.after(() => rmSync(data, { recursive: true, force: true }))
  const folder = join(data, 'base/1')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, '10'), Buffer.alloc(2 * PAGE_BYTES))
  const check = (): ReturnType<typeof checkPageSums> => checkPageSums(data, { fileBlocks: 1 }, undefined)
  assert.deepEqual(await check(), { pages: 2, damaged: [] })
  const planted = join(folder, '11')
  symlinkSync(join(folder, '10'), planted)
  await assert.rejects(check, { code: 'ELOOP' })
  rmSync(planted)
  execFileSync('mkfifo', [planted])
  await assert.rejects(check, { code: 'ESPIPE' })
})

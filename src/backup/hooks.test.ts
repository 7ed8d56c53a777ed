import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Failure, isFailure } from '../base/failure.ts'
import type { BackupSummary } from './backup.ts'
import { backupBetweenHooks, type Hooks, type HookOptions } from './hooks.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-hooks-'))
after(() => rmSync(folder, { recursive: true }))

const summary = {
  snapshot: '20261122t143323z-4f8a2c1d',
  kind: 'full',
  problems: [],
} as unknown as BackupSummary
const said: string[] = []
let nth = 0

function world(): HookOptions & { file: string } {
  const file = join(folder, String(nth++))
  said.length = 0
  const env = { PATH: process.env['PATH'], OUT: file }
  return {
    source: 'media',
    env,
    signal: new AbortController().signal,
    log: (line) => void said.push(line),
    file,
  }
}

const note = 'echo "$BACKSTOCK_HOOK $BACKSTOCK_SOURCE $BACKSTOCK_STATUS $BACKSTOCK_SNAPSHOT" >> "$OUT"'

function hooks(given: Partial<Hooks> = {}): Hooks {
  return { before: note, after: note, onFailure: note, timeout: 20, ...given }
}

function notes(file: string): string[] {
  return readFileSync(file, 'utf8').trimEnd().split(/ *\n/)
}

test('backupBetweenHooks() runs before and after, which learns of the snapshot', async () => {
  const options = world()
  const done = await backupBetweenHooks(hooks(), options, () => Promise.resolve(summary))
  assert.deepEqual(done, { summary, afterFailure: undefined })
  assert.deepEqual(notes(options.file), ['before media begin', `after media complete ${summary.snapshot}`])
})

test('backupBetweenHooks() tells after of a partial snapshot', async () => {
  const options = world()
  const partial = { ...summary, problems: [{ path: '/x', code: 'EIO', what: 'x' }] }
  await backupBetweenHooks(hooks({ before: undefined }), options, () => Promise.resolve(partial))
  assert.deepEqual(notes(options.file), [`after media partial ${summary.snapshot}`])
})

test('backupBetweenHooks() reads nothing when before fails', async () => {
  const options = world()
  let isRead = false
  const body = (): Promise<BackupSummary> => {
    isRead = true
    return Promise.resolve(summary)
  }
  await assert.rejects(
    backupBetweenHooks(hooks({ before: 'echo no luck; exit 7' }), options, body),
    (error) =>
      isFailure(error, 'host.hook') &&
      error.message === 'Cannot run hook before of "media": it ended with status 7; nothing was backed up',
  )
  assert.equal(isRead, false)
  assert.deepEqual(said, ['media before: no luck'])
  assert.deepEqual(notes(options.file), ['onFailure media failed'])
})

test('backupBetweenHooks() runs onFailure when the backup fails, and fails as it did', async () => {
  const options = world()
  const onFailure = 'echo "$BACKSTOCK_CODE: $BACKSTOCK_MESSAGE" >> "$OUT"; exit 1'
  const failure = new Failure('source.missing', 'the disk is gone')
  await assert.rejects(
    backupBetweenHooks(hooks({ before: undefined, onFailure }), options, () => Promise.reject(failure)),
    failure,
  )
  assert.deepEqual(notes(options.file), ['source.missing: the disk is gone'])
  assert.deepEqual(said, ['Cannot run hook onFailure of "media": it ended with status 1'])
})

test('backupBetweenHooks() keeps the snapshot when after fails, and says so', async () => {
  const { afterFailure, summary: kept } = await backupBetweenHooks(
    hooks({ before: undefined, after: ['/nonexistent/notify'] }),
    world(),
    () => Promise.resolve(summary),
  )
  assert.equal(kept, summary)
  assert.equal(
    afterFailure?.message,
    'Cannot run hook after of "media": "/nonexistent/notify" is not there; the snapshot is there',
  )
})

test('backupBetweenHooks() runs onFailure of a cancelled run too', async () => {
  const cancelling = new AbortController()
  const options = { ...world(), signal: cancelling.signal, log: () => cancelling.abort() }
  await assert.rejects(
    backupBetweenHooks(hooks({ before: 'echo begun; sleep 60' }), options, () => Promise.resolve(summary)),
    (error) => isFailure(error, 'cancelled'),
  )
  assert.deepEqual(notes(options.file), ['onFailure media failed'])
})

test('backupBetweenHooks() without hooks is the backup', async () => {
  const done = await backupBetweenHooks(undefined, world(), () => Promise.resolve(summary))
  assert.deepEqual(done, { summary, afterFailure: undefined })
})

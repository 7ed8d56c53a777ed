import assert from 'node:assert/strict'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { quietSettings } from './quiet-settings.ts'
import { settingsOf } from './read-settings.ts'
import { writeRecoverySettings } from './recovery-settings.ts'

const given = { major: 17, owner: undefined }
const WORKERS = {
  name: 'max_logical_replication_workers',
  putBack: 'ALTER SYSTEM RESET max_logical_replication_workers',
}

function dataFolder(t: TestContext, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-settings-'))
  t.after(() => rmSync(folder, { recursive: true }))
  mkdirSync(join(folder, 'conf.d'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  return folder
}

/** What a server reads last. */
function autoSettings(folder: string): Map<string, string> {
  return settingsOf(readFileSync(join(folder, 'postgresql.auto.conf'), 'latin1').split('\n'))
}

test('`quietSettings()` sets aside what would count, and tells what puts it back', (t) => {
  const folder = dataFolder(t, {
    'postgresql.conf':
      "include_dir 'conf.d'\nprimary_conninfo = 'host=old password=secret'\narchive_mode = off\n",
    'conf.d/a.conf': "Archive_Mode = on\nsynchronized_standby_slots = 'spare'\n",
    'conf.d/b.conf': "recovery_min_apply_delay = '8h'\nmax_logical_replication_workers = 0\n",
    'postgresql.auto.conf':
      "archive_mode = 'always'\nsynchronous_standby_names = 'ANY 1 (\"it''s a\\\\b é\")'\n",
  })
  assert.deepEqual(quietSettings(folder, given), [
    { name: 'archive_mode', putBack: "ALTER SYSTEM SET archive_mode = 'always'" },
    {
      name: 'synchronous_standby_names',
      putBack: "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"it''s a\\b é\")'",
    },
    { name: 'synchronized_standby_slots', putBack: 'ALTER SYSTEM RESET synchronized_standby_slots' },
    { name: 'primary_conninfo', putBack: undefined },
    { name: 'recovery_min_apply_delay', putBack: undefined },
  ])
  const settings = autoSettings(folder)
  assert.deepEqual(
    ['archive_mode', 'synchronous_standby_names', 'primary_conninfo', 'recovery_min_apply_delay'].map(
      (name) => settings.get(name),
    ),
    ['off', '', '', '0'],
  )
})

test('`quietSettings()` says nothing that the version does not know', (t) => {
  const folder = dataFolder(t, { 'postgresql.conf': '' })
  assert.deepEqual(quietSettings(folder, { ...given, major: 16 }), [WORKERS])
  assert.equal(autoSettings(folder).has('synchronized_standby_slots'), false)
})

test('`quietSettings()` tells the same when it runs again, and after a recovery was prepared', (t) => {
  const folder = dataFolder(t, {
    'postgresql.conf': 'archive_mode = on\n',
    'postgresql.auto.conf': "work_mem = '9MB'\n",
  })
  const first = quietSettings(folder, given)
  const text = readFileSync(join(folder, 'postgresql.auto.conf'), 'utf8')
  const target = { lsn: 0x300_0000n, isInclusive: true, timeline: 1 }
  writeRecoverySettings(folder, target, undefined)
  writeRecoverySettings(folder, target, undefined)
  const during = autoSettings(folder)
  assert.equal(during.get('recovery_target_lsn'), '0/3000000')
  assert.equal(during.get('hot_standby'), 'off', 'nobody may run ALTER SYSTEM meanwhile')
  assert.deepEqual(quietSettings(folder, given), first)
  assert.equal(readFileSync(join(folder, 'postgresql.auto.conf'), 'utf8'), text)
  assert.equal(autoSettings(folder).get('work_mem'), '9MB')
})

test('`quietSettings()` takes the target of an earlier recovery away, and keeps the mode', (t) => {
  const lines = [
    "recovery_target_time = '2026-01-01'",
    "recovery_target = ''",
    "restore_command = 'false'",
    "recovery_targets.mine = 'x'",
  ]
  const folder = dataFolder(t, { 'postgresql.auto.conf': `${lines.join('\n')}\n` })
  chmodSync(join(folder, 'postgresql.auto.conf'), 0o640)
  quietSettings(folder, given)
  const names = [...autoSettings(folder).keys()].filter((name) => /^re(?:covery_target|store)/.test(name))
  assert.deepEqual(names, ['recovery_targets.mine'])
  assert.equal(statSync(join(folder, 'postgresql.auto.conf')).mode & 0o777, 0o640)
})

test('`quietSettings()` follows no link that lies in the place of the file', (t) => {
  const folder = dataFolder(t, { elsewhere: 'archive_mode = on\n' })
  symlinkSync('elsewhere', join(folder, 'postgresql.auto.conf'))
  assert.deepEqual(quietSettings(folder, given), [WORKERS])
  assert.equal(readFileSync(join(folder, 'elsewhere'), 'utf8'), 'archive_mode = on\n')
})

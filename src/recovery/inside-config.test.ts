import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { mendInsideConfig } from './inside-config.ts'
import { readConfigFile, settingsOf } from './read-settings.ts'

const NOTHING = {
  files: new Map<string, string>(),
  config: undefined,
  hba: undefined,
  ident: undefined,
  data: '/old/',
}

function dataFolder(t: TestContext, config: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-inside-'))
  t.after(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'postgresql.conf'), config)
  return folder
}

function autoSettings(folder: string): Map<string, string> {
  return settingsOf(readFileSync(join(folder, 'postgresql.auto.conf'), 'latin1').split('\n'))
}

test('`mendInsideConfig()` writes nothing where all is in the data folder', (t) => {
  const folder = dataFolder(t, "port = 1\nhba_file = 'pg_hba.conf'\n")
  assert.equal(mendInsideConfig(folder, NOTHING, undefined), false)
  assert.equal(existsSync(join(folder, 'postgresql.auto.conf')), false)
  assert.equal(readFileSync(join(folder, 'postgresql.conf'), 'utf8'), "port = 1\nhba_file = 'pg_hba.conf'\n")
})

test('`mendInsideConfig()` leads from the old data folder to the new one', (t) => {
  const folder = dataFolder(t, "data_directory = '/old'\nident_file = '/old/my_ident.conf'\n")
  writeFileSync(join(folder, 'my_ident.conf'), '')
  mendInsideConfig(folder, NOTHING, undefined)
  assert.deepEqual([...autoSettings(folder)], [['ident_file', join(folder, 'my_ident.conf')]])
  const own = settingsOf(readFileSync(join(folder, 'postgresql.conf'), 'latin1').split('\n'))
  assert.deepEqual([...own.keys()], ['ident_file'])
})

test('`mendInsideConfig()` keeps the server off the old data folder, whichever file names that', (t) => {
  const elsewhere = dataFolder(t, "data_directory = '/old' # not ours\n")
  const theirs = join(elsewhere, 'postgresql.conf')
  const named = "port = 1\nData_Directory '/old'\n"
  const inside = dataFolder(t, "include_dir 'conf.d'\nport = 2\n")
  const outside = dataFolder(t, `include_dir 'conf.d'\ninclude '${theirs}'`)
  const linked = dataFolder(t, "include_dir 'conf.d'\n")
  for (const folder of [inside, outside]) {
    mkdirSync(join(folder, 'conf.d'))
    writeFileSync(join(folder, 'conf.d/x.conf'), named)
  }
  symlinkSync(elsewhere, join(linked, 'conf.d'))
  for (const [folder, expected] of [
    [inside, undefined],
    [outside, outside],
    // It would be written through the link.
    [linked, linked],
  ] as const) {
    assert.equal(mendInsideConfig(folder, NOTHING, undefined), true)
    assert.equal(readConfigFile(folder).get('data_directory'), expected)
    const first = readFileSync(join(folder, 'postgresql.conf'), 'utf8')
    mendInsideConfig(folder, NOTHING, undefined)
    assert.equal(readFileSync(join(folder, 'postgresql.conf'), 'utf8'), first, 'it does not grow')
  }
  assert.equal(readFileSync(theirs, 'utf8'), "data_directory = '/old' # not ours\n")
})

test('`mendInsideConfig()` has the server write to places of its own', (t) => {
  const folder = dataFolder(t, "external_pid_file = '/run/main.pid'\nlog_directory = '../logs'\n")
  mendInsideConfig(folder, NOTHING, undefined)
  assert.deepEqual(
    [...autoSettings(folder)],
    [
      ['external_pid_file', ''],
      ['log_directory', 'log'],
    ],
  )
  const own = dataFolder(t, "external_pid_file = 'main.pid'\nlog_directory = 'logs..'\n")
  assert.equal(mendInsideConfig(own, NOTHING, undefined), false)
})

test('`mendInsideConfig()` lets in users of this host where pg_hba.conf is in no backup', (t) => {
  const folder = dataFolder(t, "hba_file = '/gone/pg_hba.conf'\nident_file = '/gone/pg_ident.conf'\n")
  for (let run = 0; run < 2; run++) mendInsideConfig(folder, NOTHING, undefined)
  const place = join(folder, 'pg_hba.restored.conf')
  assert.deepEqual([...autoSettings(folder)], [['hba_file', place]])
  assert.match(readFileSync(place, 'utf8'), /^local all all peer$/m)
})

test('`mendInsideConfig()` leaves a file alone that is on this host and not in the backup', (t) => {
  const elsewhere = join(dataFolder(t, ''), 'postgresql.conf')
  const folder = dataFolder(t, `hba_file = '${elsewhere}'\n`)
  mendInsideConfig(folder, NOTHING, undefined)
  assert.equal(existsSync(join(folder, 'postgresql.auto.conf')), false)
})

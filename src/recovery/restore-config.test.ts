import assert from 'node:assert/strict'
import { test } from 'node:test'
import { adjustedConfig, adjustedList, type StoredConfig } from './restore-config.ts'

function storedConfig(files: Record<string, string>): StoredConfig {
  const config = '/etc/pg/postgresql.conf'
  return { files: new Map(Object.entries(files)), config, hba: undefined, ident: undefined, data: undefined }
}

/** Lines that a server would take. */
function active(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('#'))
}

const everything = (): boolean => true

test('`adjustedConfig()` keeps what counts and comments places out', () => {
  const lines = [
    "data_directory = '/var/lib/pg' # data",
    "HBA_FILE='/etc/pg/pg_hba.conf'",
    'ident_file /etc/pg/pg_ident.conf',
    "external_pid_file = '/run/pg.pid'",
    "log_directory = '/var/log/pg'",
    "stats_temp_directory = '../stats'",
    'port = 5433',
    "search_path = 'it''s'",
    'my.setting = on',
    '# data_directory = no',
  ]
  const text = adjustedConfig(storedConfig({ '/etc/pg/postgresql.conf': lines.join('\n') }), everything)
  assert.deepEqual(active(text), ['port = 5433', "search_path = 'it''s'", 'my.setting = on'])
  assert.ok(text.includes("#data_directory = '/var/lib/pg' # data"))
})

test('`adjustedConfig()` puts included files in the places of their lines', () => {
  const files = {
    '/etc/pg/postgresql.conf':
      "a = 1\ninclude_dir = 'conf.d'\ninclude '../more.conf'\nb = 2\ninclude_if_exists x",
    '/etc/pg/conf.d/20.conf': 'c = 20',
    '/etc/pg/conf.d/10.conf': "c = 10\ninclude 'deep/in.conf'",
    '/etc/pg/conf.d/deep/in.conf': 'd = 1',
    '/etc/pg/conf.d/.hidden.conf': 'e = 1',
    '/etc/pg/conf.d/readme': 'f = 1',
    '/etc/more.conf': "data_directory = 'x'\ng = 1",
  }
  const text = adjustedConfig(storedConfig(files), everything)
  assert.deepEqual(active(text), ['a = 1', 'c = 10', 'd = 1', 'c = 20', 'g = 1', 'b = 2'])
})

test('`adjustedConfig()` ends where files include each other', () => {
  const files = { '/etc/pg/postgresql.conf': "a = 1\ninclude 'postgresql.conf'" }
  assert.equal(active(adjustedConfig(storedConfig(files), everything)).length, 11)
})

test('`adjustedConfig()` leaves out what is not on this host, and TLS with its files', () => {
  const lines = [
    'ssl = on',
    "ssl_cert_file = '/etc/ssl/cert.pem'",
    "ssl_key_file = 'server.key'",
    "unix_socket_directories = '/run/pg, /tmp'",
    "log_directory = 'log'",
  ]
  const stored = storedConfig({ '/etc/pg/postgresql.conf': lines.join('\n') })
  const there = (path: string): boolean => path === '/tmp'
  assert.deepEqual(active(adjustedConfig(stored, there)), [
    'ssl = on',
    "ssl_key_file = 'server.key'",
    "log_directory = 'log'",
    'ssl = off',
  ])
  assert.deepEqual(active(adjustedConfig(stored, everything)), lines)
})

test('`adjustedList()` puts names in the place of the file that lists them', () => {
  const lines = [
    'host @dbs @"our admins",carol 10.0.0.0/8 md5 # not @this',
    'include more.conf',
    'host all "@quoted" 10.0.0.0/8 md5',
    'host all @lost 10.0.0.0/8 md5',
    'host all @lost 10.0.0.0/8 reject',
    'host all @round 10.0.0.0/8 md5',
  ]
  const stored = storedConfig({
    '/etc/pg/pg_hba.conf': lines.join('\n'),
    '/etc/pg/more.conf': 'host all @deep/names all md5',
    '/etc/pg/dbs': 'shop\n"Caf\xc3\xa0 2" # both',
    '/etc/pg/our admins': 'alice, @deep/names',
    '/etc/pg/deep/names': 'bob',
    '/etc/pg/round': '@round',
  })
  assert.deepEqual(active(adjustedList(stored, '/etc/pg/pg_hba.conf')), [
    'host shop,"Caf\xc3\xa0 2" alice,bob,carol 10.0.0.0/8 md5 # not @this',
    'host all bob all md5',
    'host all "@quoted" 10.0.0.0/8 md5',
    'host all all 10.0.0.0/8 reject',
  ])
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { includedPath, parseConfigLine, parseListLine } from './config-lines.ts'

test('`parseConfigLine()` reads lines as the server does', () => {
  const cases: [string, string, string][] = [
    ['port = 5432', 'port', '5432'],
    ['  Port=5432#x', 'port', '5432'],
    ['port 5432', 'port', '5432'],
    ["a.b = 'it''s' # c", 'a.b', "it's"],
    ["include_dir 'conf.d'", 'include_dir', 'conf.d'],
    ["x = 'a\\'b'", 'x', "a'b"],
    ["x = ''", 'x', ''],
  ]
  for (const [line, name, value] of cases) assert.deepEqual(parseConfigLine(line), { name, value }, line)
  for (const line of ['', '# port = 1', 'port', '= 1']) assert.equal(parseConfigLine(line), undefined, line)
})

test('`parseListLine()` finds includes only', () => {
  assert.deepEqual(parseListLine('include "more.conf"'), { name: 'include', value: 'more.conf' })
  assert.deepEqual(parseListLine(' include_dir hba.d # x'), { name: 'include_dir', value: 'hba.d' })
  assert.equal(parseListLine('host all all 127.0.0.1/32 trust'), undefined)
})

test('`includedPath()` starts where the including file lies', () => {
  assert.equal(includedPath('/etc/pg/a.conf', 'b.conf'), '/etc/pg/b.conf')
  assert.equal(includedPath('/etc/pg/a.conf', '../c/./b.conf'), '/etc/c/b.conf')
  assert.equal(includedPath('/etc/pg/a.conf', '/x.conf'), '/x.conf')
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FAILURES, isFailure } from '../base/failure.ts'
import type { CommandSpec } from './command-spec.ts'
import { type CommandName, type InputOf, commands, optionFlag } from './commands.ts'
import { type Request, parseCommandLine } from './program.ts'

async function parse<N extends CommandName>(name: N, line: string): Promise<InputOf<N>> {
  const request = await parseCommandLine(line.split(' '), '1.2.3')
  assert.ok(request.kind === 'run' && request.name === name, JSON.stringify(request))
  return request.input as InputOf<N>
}

async function refusal(line: string): Promise<string> {
  const error = await parseCommandLine(line === '' ? [] : line.split(' '), '1.2.3').then(
    (request: Request) => assert.fail(JSON.stringify(request)),
    (reason: unknown) => reason,
  )
  assert.ok(isFailure(error, 'usage.invalid'), String(error))
  return error.message
}

test('parseCommandLine() gives a command every key of its row', async () => {
  assert.deepEqual(await parse('backup', 'backup'), {
    sources: [],
    kind: 'auto',
    tag: [],
    dryRun: false,
    stdin: false,
    stdinFilename: 'stdin',
    filesFrom: [],
    filesFrom0: [],
    exclude: [],
    allowEmpty: false,
    uploadLimit: undefined,
    host: undefined,
  })
  assert.deepEqual(
    await parse(
      'backup',
      'backup a b --kind full --tag x --tag y -n --upload-limit 1KiB/s -e *.tmp --files-from0 -',
    ),
    {
      sources: ['a', 'b'],
      kind: 'full',
      tag: ['x', 'y'],
      dryRun: true,
      stdin: false,
      stdinFilename: 'stdin',
      filesFrom: [],
      filesFrom0: ['-'],
      exclude: ['*.tmp'],
      allowEmpty: false,
      uploadLimit: 1024,
      host: undefined,
    },
  )
})

test('parseCommandLine() reads restore and its negated option', async () => {
  const restore = await parse(
    'restore',
    'restore media --to /tmp/x --no-owner --at 2026-11-22T14:30:00Z --path a --path b',
  )
  assert.equal(restore.source, 'media')
  assert.equal(restore.to, '/tmp/x')
  assert.equal(restore.noOwner, true)
  assert.equal(restore.at, Date.UTC(2026, 10, 22, 14, 30))
  assert.deepEqual(restore.path, ['a', 'b'])
  const exact = await parse('restore', 'restore media --to x --at 2026-11-22T14:30:00.123457+01:00')
  assert.equal(Math.round((exact.at ?? 0) * 1000), Date.UTC(2026, 10, 22, 13, 30) * 1000 + 123_457)
  await assert.rejects(parse('restore', 'restore media --to x --at 2026-11-22T14:30:00.1234567Z'))
  assert.equal((await parse('restore', 'restore media --to x')).noOwner, false)
})

test('parseCommandLine() reads optional values, short options together, and words after --', async () => {
  assert.equal((await parse('check', 'check')).readData, undefined)
  assert.equal((await parse('check', 'check --read-data')).readData, 100)
  assert.equal((await parse('check', 'check --read-data=2.5')).readData, 2.5)
  const ls = await parse('ls', 'ls -lR latest /srv')
  assert.deepEqual([ls.long, ls.recursive, ls.snapshot, ls.path], [true, true, 'latest', '/srv'])
  assert.deepEqual((await parse('find', 'find -- -x --json')).patterns, ['-x', '--json'])
})

test('an empty value, as of a variable that is not set, is refused everywhere', async () => {
  const empty = async (...argv: string[]): Promise<string> => {
    const error = await parseCommandLine(argv, '1').catch((reason: unknown) => reason)
    assert.ok(isFailure(error, 'usage.invalid'), argv.join(' '))
    return error.message
  }
  assert.match(await empty('-c', '', 'status'), /^Cannot use --config "": it must be FILE \(the config/)
  assert.match(await empty('restore', 'media', '--to', ''), /^Cannot use --to "": it must be DIR \(/)
  assert.match(await empty('ls', ''), /^Cannot use "" as snapshot: it must be an id, .*"latest"/)
  for (const [name, spec] of Object.entries<CommandSpec>(commands)) {
    const words = name.split(' ')
    const needed = Object.values(spec.arguments).map(({ choices }) => choices?.[0] ?? 'x')
    for (const at of needed.keys()) await empty(...words, ...needed.with(at, ''))
    for (const [key, option] of Object.entries(spec.options)) {
      if (option.value !== undefined) await empty(...words, ...needed, `${optionFlag(key)}=`)
    }
  }
})

test('global options stand before or after the command', async () => {
  for (const line of [
    '--json -c a.yaml --no-color key list',
    'key list --json -c a.yaml --no-color',
    'key --json list -c a.yaml --no-color',
  ]) {
    const request = await parseCommandLine(line.split(' '), '1.2.3')
    assert.ok(request.kind === 'run')
    assert.equal(request.name, 'key list')
    assert.deepEqual(
      request.globals,
      { config: 'a.yaml', json: true, quiet: false, verbose: false, color: false, localTime: false },
      line,
    )
  }
})

test('parseCommandLine() refuses wrong usage and suggests', async () => {
  const cases: [string, RegExp][] = [
    ['bakup', /unknown command 'bakup' \(did you mean backup\?\)/],
    ['key lst', /did you mean list/],
    ['key', /"key": it needs one of list, add, rotate, writer, janitor, revoke/],
    ['', /it needs a command/],
    ['backup --kin full', /did you mean --kind/],
    ['backup --kind hourly', /Allowed choices are auto, full/],
    ['backup --upload-limit 10', /--upload-limit "10": it must be a rate/],
    ['backup --stdin --files-from x', /cannot be used with/],
    ['restore media', /--to <DIR>/],
    ['cat latest', /missing required argument 'path'/],
    ['restore media --to', /argument missing/],
    ['restore media --to x --snapshot a --at 2026-11-22', /cannot be used with/],
    ['restore media --to x --at yesterday', /it must be a time/],
    ['restore media --to x --at 2026-02-30', /it must be a time/],
    ['check --read-data=0', /it must be a percentage/],
    ['check --read-data=101', /it must be a percentage/],
    ['snapshots --latest 0', /it must be a whole number/],
    ['diff a b c', /too many arguments/],
    ['--jsn backup', /did you mean --json/],
  ]
  for (const [line, message] of cases) assert.match(await refusal(line), message, line)
})

test('every command explains itself with examples that it understands', async () => {
  for (const [name, spec] of Object.entries<CommandSpec>(commands)) {
    const help = await parseCommandLine([...name.split(' '), '--help'], '1.2.3')
    assert.ok(help.kind === 'help')
    assert.ok(help.text.includes(`Usage: backstock ${name}`), help.text)
    assert.ok(spec.examples.length > 0, name)
    for (const [example] of spec.examples) {
      const words = /backstock ([^|>)]+)/.exec(example)?.[1]?.trim().replaceAll("'", '').split(' ') ?? []
      const request = await parseCommandLine(words, '1.2.3')
      assert.ok(request.kind === 'run' && request.name === name, example)
    }
  }
})

test('--help shows every command once, `help COMMAND` is the same as COMMAND --help', async () => {
  const help = await parseCommandLine(['--help'], '1.2.3')
  assert.ok(help.kind === 'help')
  for (const name of Object.keys(commands))
    assert.match(help.text, new RegExp(`^  ${name.split(' ')[0]}\\b`, 'm'))
  assert.deepEqual(await parseCommandLine(['help', 'ls'], '1'), await parseCommandLine(['ls', '--help'], '1'))
  assert.deepEqual(await parseCommandLine(['--version'], '1.2.3'), { kind: 'help', text: '1.2.3\n' })
})

test('help of an unknown command is refused like the command', async () => {
  for (const line of ['help bakup', 'bakup --help', 'bakup -h'])
    assert.match(await refusal(line), /unknown command 'bakup' \(did you mean backup\?\)/, line)
  for (const line of [
    '--json nope --help',
    '-q nope -h',
    '-c a.yaml nope --help',
    '--help nope',
    'key nope --help',
    'key --json nope -h',
    'help key nope',
    'help help nope',
    '--json help nope',
    '-c help help nope',
  ])
    assert.match(await refusal(line), /unknown command 'nope'/, line)
})

test('help of help, of a group, and past global options is help', async () => {
  const help = (line: string): Promise<Request> => parseCommandLine(line.split(' '), '1')
  assert.deepEqual(await help('help help'), await help('--help'))
  assert.deepEqual(await help('help key'), await help('key --help'))
  assert.deepEqual(await help('-c help --json key list -h'), await help('key list --help'))
  for (const line of ['--json help ls', 'help --json ls', '-q -c help help ls', '--config=x help ls --json'])
    assert.deepEqual(await help(line), await help('ls --help'), line)
  assert.deepEqual(await help('--json help'), await help('--help'))
  for (const line of ['--json help exit-codes', 'help --json exit-codes', 'help exit-codes --json'])
    assert.deepEqual(await help(line), await help('help exit-codes'), line)
})

test('--help and `help exit-codes` explain every exit status, and each command says where', async () => {
  const helpOf = async (...argv: string[]): Promise<string> => {
    const request = await parseCommandLine(argv, '1')
    assert.ok(request.kind === 'help')
    return request.text
  }
  for (const text of [await helpOf('--help'), await helpOf('help', 'exit-codes')]) {
    for (const exit of [0, ...Object.values(FAILURES).map((failure) => failure.exit)])
      assert.match(text, new RegExp(`^ +${exit}  \\S`, 'm'))
    for (const line of text.split('\n')) assert.ok(line.length <= 80, line)
  }
  for (const name of Object.keys(commands))
    assert.match(await helpOf(...name.split(' '), '--help'), /`backstock help exit-codes`/, name)
})

test('any words are understood or refused', async () => {
  const word = fc.oneof(
    fc.constantFrom(
      ...Object.keys(commands).flatMap((name) => name.split(' ')),
      '--json',
      '--',
      '-c',
      '--to',
      '-n',
    ),
    fc.string(),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 5 }), async (argv) => {
      await parseCommandLine(argv, '1').catch((error: unknown) =>
        assert.ok(isFailure(error, 'usage.invalid'), String(error)),
      )
    }),
  )
})

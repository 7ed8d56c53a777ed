import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { FAILURES, Failure, type FailureCode } from '../base/failure.ts'
import { fakeStream } from '../../test/harness/cli-world.ts'
import {
  detail,
  harmless,
  newPrinter,
  note,
  printEvent,
  printFailure,
  printFinding,
  printLine,
  printSummary,
  printTable,
  warn,
  writeBytes,
} from './print.ts'

function fakes(options: {
  json?: boolean
  quiet?: boolean
  verbose?: boolean
  env?: Record<string, string>
  tty?: number
}) {
  const out = fakeStream(options.tty)
  const err = fakeStream(options.tty)
  const printer = newPrinter({ out: out.stream, err: err.stream, env: {}, ...options })
  return { printer, out, err }
}

test('--json leaves nothing but one object a line on stdout', () => {
  const { printer, out } = fakes({ json: true })
  printLine(printer, 'for people')
  printTable(printer, [{ title: 'x' }], [['1']])
  printEvent(printer, { type: 'entry', name: 'a\nb', size: 12n })
  printFinding(printer, { severity: 'error', message: 'cut short' })
  printSummary(printer, { type: 'summary', files: 3 }, ['3 files'])
  const lines = out.text().trimEnd().split('\n')
  assert.deepEqual(
    lines.map((line) => JSON.parse(line) as unknown),
    [
      { type: 'entry', name: 'a\nb', size: '12' },
      { type: 'finding', severity: 'error', message: 'cut short' },
      { type: 'summary', files: 3 },
    ],
  )
})

test('without --json there are no events', () => {
  const { printer, out } = fakes({})
  printEvent(printer, { type: 'status' })
  printSummary(printer, { type: 'summary' }, ['done'])
  printFinding(printer, { severity: 'warning', message: 'old' })
  assert.equal(out.text(), 'done\nwarning: old\n')
})

test('--quiet keeps results and warnings, --verbose adds details', () => {
  const quiet = fakes({ quiet: true })
  note(quiet.printer, 'a note')
  printSummary(quiet.printer, { type: 'summary' }, ['a summary'])
  warn(quiet.printer, 'a warning')
  printLine(quiet.printer, 'a result')
  assert.equal(quiet.out.text(), 'a result\n')
  assert.equal(quiet.err.text(), 'warning: a warning\n')
  const verbose = fakes({ verbose: true })
  detail(verbose.printer, 'why')
  detail(quiet.printer, 'why')
  assert.equal(verbose.err.text(), 'why\n')
})

test('colours are for terminals only, and not with NO_COLOR or a dumb terminal', () => {
  const shown = [
    fakes({ tty: 80 }),
    fakes({}),
    fakes({ tty: 80, env: { NO_COLOR: '1' } }),
    fakes({ tty: 80, env: { TERM: 'dumb' } }),
  ]
  for (const { printer } of shown) warn(printer, 'x')
  assert.deepEqual(
    shown.map(({ err }) => err.text().includes('\u001b')),
    [true, false, false, false],
  )
})

test('names from outside cannot act on the terminal', () => {
  const { printer, out } = fakes({ tty: 80 })
  printLine(printer, 'evil\u001b[2J\u0007\u009b\u202e.txt')
  assert.equal(out.text(), 'evil\\x1b[2J\\x07\\x9b\\u202e.txt\n')
  assert.equal(harmless('Grüße\t日本\n'), 'Grüße\t日本\n')
})

test('printFailure() gives each code its exit status and advice', () => {
  for (const [code, { exit, hint }] of Object.entries(FAILURES)) {
    const { printer, err } = fakes({})
    assert.equal(printFailure(printer, new Failure(code as FailureCode, 'Cannot do "it": so it is')), exit)
    assert.equal(err.text(), `backstock: Cannot do "it": so it is\n  ${hint}\n`)
  }
})

test('printFailure() with --json is one event on stdout, and nothing on stderr', () => {
  const { printer, out, err } = fakes({ json: true })
  printFailure(printer, new Failure('repo.missing', 'No repository', { facts: { store: 'file:///x' } }))
  const event = JSON.parse(out.text()) as Record<string, unknown>
  assert.deepEqual(event, {
    type: 'error',
    code: 'repo.missing',
    message: 'No repository',
    hint: FAILURES['repo.missing'].hint,
    exit: 10,
    facts: { store: 'file:///x' },
  })
  assert.equal(err.text(), '')
})

test('printFailure() prefers the hint of the thrower and shows causes to --verbose', () => {
  const { printer, err } = fakes({ verbose: true })
  const cause = new Error('EIO', { cause: 'the disk' })
  printFailure(printer, new Failure('host.file', 'Cannot read', { facts: { hint: 'Turn it on.' }, cause }))
  assert.equal(err.text(), 'backstock: Cannot read\n  Turn it on.\n  because: EIO\n  because: the disk\n')
})

test('printFailure() asks to report a bug, with the stack', () => {
  const { printer, err, out } = fakes({ json: true })
  assert.equal(printFailure(printer, new TypeError('x is undefined')), 1)
  assert.match(err.text(), /report it[^]*print\.test\.ts/)
  assert.match(out.text(), /"code":"bug"/)
})

test('writeBytes() waits for room, and no longer once it is cancelled or the reader is gone', async () => {
  const pending: (() => void)[] = []
  const slow = new Writable({ highWaterMark: 1, write: (_, __, done) => void pending.push(done) })
  const printer = newPrinter({ out: slow, err: fakeStream().stream, env: {} })
  const never = new AbortController().signal
  let written = false
  const first = writeBytes(printer, Buffer.from('abc'), never).then(() => (written = true))
  await Promise.resolve()
  assert.equal(written, false)
  pending.shift()?.()
  await first
  const stop = new AbortController()
  const second = writeBytes(printer, Buffer.from('def'), stop.signal)
  stop.abort()
  await assert.rejects(second, { name: 'AbortError' })
  slow.on('error', () => undefined)
  const third = writeBytes(printer, Buffer.from('ghi'), never)
  slow.destroy(new Error('EPIPE'))
  await third
})

import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { test } from 'node:test'
import { runHere } from '../../test/harness/cli-world.ts'
import { Failure } from '../base/failure.ts'
import { commands } from './commands.ts'
import type { CommandContext } from './context.ts'
import { commandModules } from './modules.ts'
import { printEvent, printLine } from './print.ts'

test('runProgram() gives the command its input and passes on its exit status', async () => {
  const outcome = await runHere(
    ['status', 'media', '--json'],
    {},
    {
      status: async () => ({
        run: async ({ printer }, { sources }) => {
          printEvent(printer, { type: 'summary', sources })
          return 3
        },
      }),
    },
  )
  assert.deepEqual(outcome, { exit: 3, stdout: '{"type":"summary","sources":["media"]}\n', stderr: '' })
})

test('runProgram() turns a Failure into its exit status and a bug into 1', async () => {
  const throwing = (error: Error) => ({
    init: async () => ({ run: async () => Promise.reject(error) }),
  })
  const busy = await runHere(
    ['init'],
    {},
    throwing(new Failure('repo.busy', 'Cannot begin: another run is at it')),
  )
  assert.equal(busy.exit, 11)
  assert.match(busy.stderr, /^backstock: Cannot begin/)
  const bug = await runHere(['init'], {}, throwing(new TypeError('oops')))
  assert.equal(bug.exit, 1)
  assert.match(bug.stderr, /oops\n {2}This is a bug[^]*run\.test\.ts/)
})

test('runProgram() ends with one summary whatever fails, and when the command has said its own', async () => {
  const outcomes = [new Failure('cancelled', 'Cancelled'), new TypeError('oops')].map(async (error) =>
    runHere(['check', '--json'], {}, { check: async () => ({ run: async () => Promise.reject(error) }) }),
  )
  const ends = (await Promise.all(outcomes)).map(({ stdout }) => stdout.trimEnd().split('\n').slice(1))
  assert.deepEqual(ends, [
    ['{"type":"summary","command":"check","code":"cancelled","message":"Cancelled","exit":130}'],
    ['{"type":"summary","command":"check","code":"bug","message":"oops","exit":1}'],
  ])
  const late = async ({ printer }: CommandContext): Promise<number> => {
    printEvent(printer, { type: 'summary', command: 'check' })
    throw new Failure('storage.full', 'Too late')
  }
  const { stdout } = await runHere(['check', '--json'], {}, { check: async () => ({ run: late }) })
  assert.deepEqual(stdout.match(/"type":"\w+"/g), ['"type":"summary"', '"type":"error"'])
})

test('runProgram() ends a cancelled command with 130', async () => {
  const stopping = new AbortController()
  const outcome = await runHere(
    ['backup'],
    { signal: stopping.signal },
    {
      backup: async () => ({
        run: async ({ signal }) => {
          stopping.abort()
          signal.throwIfAborted()
          return 0
        },
      }),
    },
  )
  assert.equal(outcome.exit, 130)
  assert.match(outcome.stderr, /^backstock: Cancelled\n/)
})

test('runProgram() keeps the failure of a command that failed while it was being cancelled', async () => {
  const stopping = new AbortController()
  const outcome = await runHere(
    ['backup'],
    { signal: stopping.signal },
    {
      backup: async () => ({
        run: async () => {
          stopping.abort()
          throw new Failure('storage.full', 'Cannot write: the disk is full')
        },
      }),
    },
  )
  assert.equal(outcome.exit, 21)
})

test('a listing ends with 0 when nobody reads on, a backup goes on to its own end', async () => {
  const broken = (): PassThrough => {
    const stream = new PassThrough()
    stream.write = () => {
      stream.emit('error', Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
      return false
    }
    return stream
  }
  const ls = await runHere(
    ['ls', 'latest'],
    { stdout: broken() },
    {
      ls: async () => ({
        run: async ({ printer, signal }) => {
          for (;;) {
            signal.throwIfAborted()
            printLine(printer, 'x')
          }
        },
      }),
    },
  )
  assert.deepEqual([ls.exit, ls.stderr], [0, ''])
  const backup = await runHere(
    ['backup'],
    { stdout: broken() },
    {
      backup: async () => ({
        run: async ({ printer, signal }) => {
          for (let line = 0; line < 9; line++) printLine(printer, 'x')
          return signal.aborted ? 1 : 3
        },
      }),
    },
  )
  assert.deepEqual([backup.exit, backup.stderr], [3, ''])
})

test('results that cannot be written are a failure, of a backup too', async () => {
  for (const [line, name] of [['cat latest /x', 'cat'] as const, ['backup', 'backup'] as const]) {
    const full = new PassThrough()
    full.write = (...given: unknown[]) => {
      const done = given.findLast((one) => typeof one === 'function') as (() => void) | undefined
      setImmediate(() => {
        full.emit('error', Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' }))
        done?.()
      })
      return true
    }
    const run = async ({ printer }: CommandContext): Promise<number> => {
      printLine(printer, 'x')
      return 0
    }
    const { exit, stderr } = await runHere(
      line.split(' '),
      { stdout: full },
      { [name]: async () => ({ run }) },
    )
    assert.equal(exit, 1)
    assert.match(stderr, /^backstock: Cannot write to standard output: ENOSPC/)
  }
})

test('wrong usage is an event with --json, wherever that stands', async () => {
  const { exit, stdout, stderr } = await runHere(['bakup', '--json'])
  assert.equal(exit, 20)
  assert.equal(stderr, '')
  assert.match(stdout, /^\{"type":"error","code":"usage.invalid"/)
})

test('loadConfig() is done once and fails with the code of what is wrong', async () => {
  const outcome = await runHere(
    ['status'],
    {},
    {
      status: async () => ({
        run: async ({ loadConfig }) => {
          assert.equal(loadConfig(), loadConfig())
          await loadConfig()
          return 0
        },
      }),
    },
  )
  assert.equal(outcome.exit, 20)
  assert.match(outcome.stderr, /there is no "\/nonexistent\/backstock.yaml"/)
})

test('every module belongs to a row, and exports run()', async () => {
  for (const [name, load] of Object.entries(commandModules)) {
    assert.ok(name in commands)
    assert.equal(typeof (await load()).run, 'function')
  }
})

/** The process gets its signals as events here; only what a real one does to a program is in test/e2e. */
import assert from 'node:assert/strict'
import { afterEach, mock, test } from 'node:test'
import { fakeClock } from '../../test/harness/cli-world.ts'
import { cancelOnSignals } from './signals.ts'

const NAMES = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const
const exit = mock.method(process, 'exit', () => undefined as never)

afterEach(() => {
  for (const name of NAMES) process.removeAllListeners(name)
  exit.mock.resetCalls()
})

function exits(): unknown[] {
  return exit.mock.calls.map((call) => call.arguments[0])
}

test('`cancelOnSignals()` cancels at the first signal and ends at a later second one', () => {
  const clock = fakeClock()
  const signal = cancelOnSignals({ exit: 130, env: {}, clock })
  assert.equal(signal.aborted, false)
  process.emit('SIGTERM')
  assert.equal(signal.aborted, true)
  clock.advance(499)
  process.emit('SIGTERM')
  process.emit('SIGHUP')
  assert.deepEqual(exits(), [], 'what comes at once repeats the first')
  clock.advance(1)
  process.emit('SIGINT')
  assert.deepEqual(exits(), [130])
})

for (const order of [
  ['SIGTERM', 'SIGUSR2'],
  ['SIGUSR2', 'SIGTERM'],
] as const) {
  test(`\`cancelOnSignals()\` takes ${order.join(' and ')} of a group for one wish`, () => {
    const clock = fakeClock()
    const signal = cancelOnSignals({ exit: 130, env: { BACKSTOCK_LAUNCHER: `${process.ppid}` }, clock })
    for (const name of order) process.emit(name)
    assert.equal(signal.aborted, true)
    clock.advance(60_000)
    process.emit('SIGUSR2')
    assert.deepEqual(exits(), [], 'the launcher may be late')
    process.emit('SIGTERM')
    assert.deepEqual(exits(), [130])
  })
}

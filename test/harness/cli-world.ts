/** For tests: a world of one's own. The program runs in the test's process; everything it says is kept. */
import { PassThrough, Writable } from 'node:stream'
import type { Clock } from '../../src/base/clock.ts'
import type { OutputStream } from '../../src/cli/print.ts'
import { type Modules, type World, runProgram } from '../../src/cli/run.ts'

export interface FakeStream {
  readonly stream: OutputStream
  text(): string
}

/** A stream that keeps what is written; with `columns` it passes for a terminal. */
export function fakeStream(columns?: number): FakeStream & { resize(columns: number): void } {
  let text = ''
  const writable = new Writable({
    decodeStrings: false,
    write(chunk: unknown, _, done) {
      text += chunk instanceof Uint8Array ? Buffer.from(chunk).toString('latin1') : String(chunk)
      done()
    },
  })
  const stream = Object.assign(writable, columns === undefined ? {} : { isTTY: true, columns })
  return { stream, text: () => text, resize: (to) => void Object.assign(stream, { columns: to }) }
}

/** A clock that stands still until it is told. */
export function fakeClock(): Clock & { advance(milliseconds: number): void } {
  let at = 0
  return { now: () => 1_800_000_000_000 + at, elapsed: () => at, advance: (by) => void (at += by) }
}

export interface Outcome {
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command line here. */
export async function runHere(
  argv: string[],
  world: Partial<World> = {},
  modules?: Modules,
): Promise<Outcome> {
  const out = fakeStream()
  const err = fakeStream()
  const exit = await runProgram(
    {
      argv,
      env: {},
      cwd: '/nonexistent',
      stdin: new PassThrough().end(),
      stdout: out.stream,
      stderr: err.stream,
      clock: fakeClock(),
      signal: new AbortController().signal,
      version: '1.2.3',
      ...world,
    },
    modules,
  )
  return { exit, stdout: out.text(), stderr: err.text() }
}

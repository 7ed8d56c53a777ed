/**
 * One run of pg_dump or pg_dumpall, read through a pipe. Its exit status counts as much as its output: a dump
 * that breaks off fails, however much of it came.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { describeEnd } from '../../base/exec.ts'
import { describeError, Failure } from '../../base/failure.ts'

export interface DumpJob {
  /** For people: `the database "orders"`. */
  readonly what: string
  readonly program: string
  readonly args: readonly string[]
  /** All of it: nothing comes from the environment of this process. */
  readonly env: Readonly<Record<string, string>>
}

export interface DumpRunner {
  readonly signal: AbortSignal | undefined
  /** Told what a dump that did well has said. */
  readonly warn: (text: string) => void
  readonly running: Set<ChildProcess>
}

const STDERR_CHARS_MAX = 4096
const LINES_SHOWN_MAX = 5

/** Starts with the first read. Fails: source.failed, cancelled. */
export async function* readDump(runner: DumpRunner, job: DumpJob): AsyncGenerator<Uint8Array> {
  const { signal, running } = runner
  const { program, args, env, what } = job
  throwIfAborted(signal, what)
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const kill = (): void => void child.kill('SIGKILL')
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (error) => resolve(describeError(error)))
    child.once('close', (code, sign) => resolve(describeEnd(code, sign)))
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = `${said}${text}`.slice(-STDERR_CHARS_MAX)
  })
  running.add(child)
  signal?.addEventListener('abort', kill, { once: true })
  let bytes = 0
  try {
    for await (const part of child.stdout as AsyncIterable<Buffer>) {
      bytes += part.length
      yield part
    }
    const is = (await ended) ?? (bytes === 0 ? 'it gave nothing' : undefined)
    throwIfAborted(signal, what)
    if (is !== undefined) throw dumpFailure(job, is, said)
  } finally {
    kill()
    running.delete(child)
    signal?.removeEventListener('abort', kill)
  }
  for (const line of linesOf(said)) runner.warn(`${what}: ${line}`)
}

/** Ends what still runs: a reader that failed reads no further. */
export function stopDumps({ running }: DumpRunner): void {
  for (const child of running) child.kill('SIGKILL')
}

function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted === true) throw new Failure('cancelled', `Stopped dumping ${what}`)
}

function dumpFailure({ what, program }: DumpJob, is: string, said: string): Failure {
  const lines = linesOf(said)
  const more = lines.length === 0 ? '' : `: ${lines.join('; ')}`
  return new Failure('source.failed', `Cannot dump ${what}: ${program}: ${is}${more}`)
}

function linesOf(said: string): string[] {
  const lines = said.split('\n').filter((line) => line.trim() !== '')
  return lines.slice(-LINES_SHOWN_MAX)
}

/**
 * Runs a program for what it does, not for what it prints: its output goes to a log line by line. It gets a
 * process group of its own, so that ending it ends what it started too.
 */
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { describeError, errnoOf } from './failure.ts'

export interface ExecOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly timeoutSeconds: number
  readonly signal?: AbortSignal | undefined
  /** A line of its stdout or stderr. */
  readonly onLine: (line: string) => void
}

/** A program left behind in the background may hold the pipes open for ever. */
const PIPE_GRACE_MS = 500

/**
 * Runs text by the shell, a list as program and arguments. Returns what went wrong, or undefined. Never
 * rejects.
 */
export async function execCommand(
  command: string | readonly string[],
  options: ExecOptions,
): Promise<string | undefined> {
  const { env, timeoutSeconds, signal, onLine } = options
  const [file = '', ...words] = typeof command === 'string' ? ['/bin/sh', '-c', command] : command
  if (isAborted(signal)) return 'it was not started: the run is cancelled'
  const child = spawn(file, words, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch (error) {
      // It has ended by itself meanwhile.
      if (errnoOf(error) !== 'ESRCH') throw error
    }
  }
  for (const input of [child.stdout, child.stderr]) createInterface({ input }).on('line', onLine)
  let isLate = false
  const timer = setTimeout(() => {
    isLate = true
    kill()
  }, timeoutSeconds * 1000)
  signal?.addEventListener('abort', kill, { once: true })
  const ended = await new Promise<string | undefined>((resolve) => {
    const settle = (code: number | null, sign: string | null): void => resolve(describeEnd(code, sign))
    child.once('error', (error) =>
      resolve(errnoOf(error) === 'ENOENT' ? `"${file}" is not there` : describeError(error)),
    )
    child.once('close', settle)
    child.once('exit', (code, sign) => setTimeout(() => settle(code, sign), PIPE_GRACE_MS).unref())
  })
  clearTimeout(timer)
  signal?.removeEventListener('abort', kill)
  child.stdout.destroy()
  child.stderr.destroy()
  if (isLate) return `it took longer than ${timeoutSeconds} s`
  return isAborted(signal) ? 'it was ended: the run is cancelled' : ended
}

/** What went wrong by how a program ended; undefined: nothing. */
export function describeEnd(code: number | null, sign: string | null): string | undefined {
  if (code === 0) return undefined
  return sign === null ? `it ended with status ${code}` : `it was ended by ${sign}`
}

/** A function, since it may become true while the type checker believes what it was. */
function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
}

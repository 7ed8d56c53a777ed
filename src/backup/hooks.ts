/**
 * Programs around the backup of one source: `before` may make it fail before anything is read, `after` comes
 * when the snapshot is there, `onFailure` when there is none. One of the last two always runs, so that what
 * `before` has stopped is started again.
 */
import { execCommand } from '../base/exec.ts'
import { describeError, Failure, isFailure } from '../base/failure.ts'
import type { BackupSummary } from './backup.ts'

/** A command for the shell (text) or a program and its arguments. */
export type HookProgram = string | readonly string[]

export interface Hooks {
  readonly before?: HookProgram | undefined
  readonly after?: HookProgram | undefined
  readonly onFailure?: HookProgram | undefined
  /** Seconds that each of them may take. */
  readonly timeout: number
}

export interface HookOptions {
  readonly source: string
  /**
   * Of the program; the hooks get it, and BACKSTOCK_SOURCE, _HOOK, _STATUS, _SNAPSHOT, _KIND, _CODE,
   * _MESSAGE.
   */
  readonly env: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
  /** A line that a hook printed. */
  readonly log: (line: string) => void
}

export interface HookedBackup {
  readonly summary: BackupSummary
  /** Why `after` failed; the snapshot is there all the same. */
  readonly afterFailure: Failure | undefined
}

type HookName = 'before' | 'after' | 'onFailure'

/** Runs `body` between the hooks. Fails: host.hook (`before`), and as `body` fails. */
export async function backupBetweenHooks(
  hooks: Hooks | undefined,
  options: HookOptions,
  body: () => Promise<BackupSummary>,
): Promise<HookedBackup> {
  if (hooks === undefined) return { summary: await body(), afterFailure: undefined }
  let summary: BackupSummary
  try {
    const failed = await runHook(hooks, 'before', options, { STATUS: 'begin' }, options.signal)
    if (failed !== undefined) throw failed
    summary = await body()
  } catch (error) {
    const code = isFailure(error) ? error.code : 'bug'
    const facts = { STATUS: 'failed', CODE: code, MESSAGE: describeError(error) }
    // Not ended by a cancelled run: it may have to start again what `before` has stopped.
    const failed = await runHook(hooks, 'onFailure', options, facts, undefined)
    if (failed !== undefined) options.log(failed.message)
    throw error
  }
  const { snapshot, kind, problems } = summary
  const facts = { STATUS: problems.length > 0 ? 'partial' : 'complete', SNAPSHOT: snapshot, KIND: kind }
  return { summary, afterFailure: await runHook(hooks, 'after', options, facts, undefined) }
}

async function runHook(
  hooks: Hooks,
  name: HookName,
  options: HookOptions,
  facts: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal | undefined,
): Promise<Failure | undefined> {
  const program = hooks[name]
  if (program === undefined) return undefined
  const { source, log } = options
  const env: Record<string, string | undefined> = { ...options.env }
  for (const [key, value] of Object.entries({ SOURCE: source, HOOK: name, ...facts })) {
    env[`BACKSTOCK_${key}`] = value
  }
  const onLine = (line: string): void => log(`${source} ${name}: ${line}`)
  const is = await execCommand(program, { env, timeoutSeconds: hooks.timeout, signal, onLine })
  if (signal?.aborted === true) return new Failure('cancelled', `Stopped in hook ${name} of "${source}"`)
  if (is === undefined) return undefined
  const then = { before: 'nothing was backed up', after: 'the snapshot is there', onFailure: '' }[name]
  const end = then === '' ? '' : `; ${then}`
  return new Failure('host.hook', `Cannot run hook ${name} of "${source}": ${is}${end}`, {
    facts: { source, hook: name },
  })
}

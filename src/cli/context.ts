/**
 * What a command gets besides its input. Commands reach the outside through it only, so that tests can give
 * their own.
 */
import type { Clock } from '../base/clock.ts'
import type { CommandName, InputOf } from './commands.ts'
import type { LoadedConfig } from './config-file.ts'
import type { Printer } from './print.ts'

export interface CommandContext {
  /** Reads and checks the configuration, once; warns on stderr. Fails: config.missing, config.invalid. */
  readonly loadConfig: () => Promise<LoadedConfig>
  /** The file that --config named. */
  readonly configFile: string | undefined
  readonly printer: Printer
  /** Aborts when the user cancels, or when nobody reads the output of a command that only prints. */
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly stdin: NodeJS.ReadableStream
}

/**
 * The module of a command. `run` resolves to the exit status; it throws a Failure when it could not do its
 * work.
 */
export interface CommandModule<N extends CommandName> {
  readonly run: (context: CommandContext, input: InputOf<N>) => Promise<number>
}

/**
 * One run of the program, from the command line to the exit status. Everything outside comes in through
 * `World`, so that tests run it in their own process; main.ts gives it the real one.
 */
import type { Clock } from '../base/clock.ts'
import { FAILURES, Failure, assert, isFailure } from '../base/failure.ts'
import { cancelledBy } from './cancelled.ts'
import type { CommandSpec } from './command-spec.ts'
import { type CommandName, commands } from './commands.ts'
import type { LoadedConfig } from './config-file.ts'
import type { CommandContext, CommandModule } from './context.ts'
import { commandModules } from './modules.ts'
import {
  newPrinter,
  type OutputStream,
  type Printer,
  printFailedSummary,
  printFailure,
  warn,
  writeText,
} from './print.ts'
import { type GlobalOptions, type Request, parseCommandLine } from './program.ts'

export interface World {
  /** Without the program's own name. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly stdin: NodeJS.ReadableStream
  readonly stdout: OutputStream
  readonly stderr: OutputStream
  readonly clock: Clock
  /** Aborts when the user cancels. */
  readonly signal: AbortSignal
  readonly version: string
}

/** Modules by command; tests give their own. */
export type Modules = { readonly [N in CommandName]?: () => Promise<CommandModule<N>> }

/** Does what the command line says and resolves to the exit status. Never rejects. */
export async function runProgram(world: World, modules: Modules = commandModules): Promise<number> {
  // For what goes wrong before the options are known.
  let printer = printerOf(world, { json: world.argv.includes('--json') })
  const unread = forgetUnread(world, () => printer)
  let command: CommandName | undefined
  try {
    const request = await parseCommandLine(world.argv, world.version)
    if (request.kind === 'help') {
      writeText(printer, request.text)
      await flushOut(printer)
      if (outputLost(unread)) throw unread.reason
      return 0
    }
    printer = printerOf(world, request.globals)
    command = request.name
    return await runCommand(world, { printer, unread }, request, modules)
  } catch (error) {
    return await endWithFailure(printer, command, cancelledBy(world.signal, error))
  }
}

function printerOf(world: World, globals: Partial<GlobalOptions>): Printer {
  return newPrinter({ out: world.stdout, err: world.stderr, env: world.env, ...globals })
}

/** Says why. An event that could not be written is said in words, or the run would end in silence. */
async function endWithFailure(
  printer: Printer,
  command: CommandName | undefined,
  error: unknown,
): Promise<number> {
  const exit = printFailure(printer, error)
  printFailedSummary(printer, command, error)
  if (!printer.json || printer.outClosed || !isFailure(error)) return exit
  await flushOut(printer)
  return printer.outClosed ? printFailure(printer, error) : exit
}

async function runCommand(
  world: World,
  { printer, unread }: { readonly printer: Printer; readonly unread: AbortSignal },
  request: Request & { kind: 'run' },
  modules: Modules,
): Promise<number> {
  const spec: CommandSpec = commands[request.name]
  const signal = spec.stopsWhenUnread === true ? AbortSignal.any([world.signal, unread]) : world.signal
  const load = modules[request.name]
  assert(load, `the command "${request.name}" has no module`)
  // The table ties name, module and input together; the type checker cannot follow a name that is a value.
  const { run } = (await load()) as { run: (context: CommandContext, input: never) => Promise<number> }
  try {
    const exit = await run(newContext(world, printer, signal, request.globals), request.input as never)
    await flushOut(printer)
    if (outputLost(unread)) throw unread.reason
    return exit
  } catch (error) {
    if (outputLost(unread)) throw unread.reason
    // `| head` has read enough: that is success.
    if (unread.aborted && spec.stopsWhenUnread === true && !world.signal.aborted) return 0
    throw error
  }
}

/** Whether results could not be written, by a full disk for one. */
function outputLost(unread: AbortSignal): boolean {
  return unread.aborted && isFailure(unread.reason, 'host.file')
}

async function flushOut(printer: Printer): Promise<void> {
  if (!printer.outClosed)
    await new Promise<void>((resolve) => printer.out.write('', () => setImmediate(resolve)))
}

function newContext(
  world: World,
  printer: Printer,
  signal: AbortSignal,
  globals: GlobalOptions,
): CommandContext {
  let loading: Promise<LoadedConfig> | undefined
  const load = async (): Promise<LoadedConfig> => {
    const { loadConfigFile } = await import('./config-file.ts')
    const loaded = await loadConfigFile(globals.config, world.cwd)
    for (const warning of loaded.warnings) warn(printer, warning)
    return loaded
  }
  return {
    loadConfig: () => (loading ??= load()),
    configFile: globals.config,
    printer,
    signal,
    clock: world.clock,
    env: world.env,
    cwd: world.cwd,
    stdin: world.stdin,
  }
}

/**
 * Drops output once its reader has gone instead of dying of EPIPE. The signal aborts then. A backup goes on:
 * it must not end because of `| head`.
 */
function forgetUnread({ stdout, stderr }: World, printer: () => Printer): AbortSignal {
  const unread = new AbortController()
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    printer().outClosed = true
    unread.abort(
      error.code === 'EPIPE'
        ? new Failure('cancelled', 'Nobody reads the output any more')
        : new Failure('host.file', `Cannot write to standard output: ${error.message}`, { cause: error }),
    )
  })
  stderr.on('error', () => {
    // Nowhere is left to say it.
  })
  return unread.signal
}

/** The exit status of a run that was cancelled. */
export const cancelledExit = FAILURES.cancelled.exit

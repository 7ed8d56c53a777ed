/**
 * Where the demo plays: runs command lines as main.ts would, in this process and with the same modules, and
 * says what came of them. What stands behind `$` is what ran.
 */
import { Readable, Writable } from 'node:stream'
import { FAILURES, Failure, type FailureCode } from '../../base/failure.ts'
import type { CommandContext } from '../context.ts'
import { harmless, printEvent, style, writeText } from '../print.ts'
import { shellWord } from '../shell-word.ts'
import { displayWidth, fitWidth } from '../table.ts'
import type { World } from '../run.ts'

export interface Stage {
  readonly context: CommandContext
  /** Holds everything: configuration, shop, repository, what is restored. */
  readonly folder: string
  readonly runProgram: (world: World) => Promise<number>
}

type Facts = Readonly<Record<string, unknown>>

/** A command that has run. */
export interface Played {
  readonly line: string
  readonly exit: number
  /** NDJSON events; none for a command whose output is a document. */
  readonly events: readonly Facts[]
  readonly summary: Facts
  readonly seconds: number
}

/** Where the results stand, behind the commands. */
const RESULT_COLUMN = 58
/** Results stand below the commands on terminals that are narrower. */
const WIDE_COLUMNS = 100
const COLUMNS_ELSEWHERE = 120

/** The program is imported here and now, since its table of commands leads to this file. */
export async function openStage(context: CommandContext, folder: string): Promise<Stage> {
  const { runProgram } = await import('../run.ts')
  return { context, folder, runProgram }
}

/**
 * Runs `backstock` with these words. Fails as the command does, unless it ends with one of `exits`.
 */
export async function play(
  stage: Stage,
  words: readonly string[],
  exits: readonly number[] = [0],
): Promise<Played> {
  const line = `$ backstock ${words.map(shellWord).join(' ')}`
  const { context, folder } = stage
  const { clock, signal, env } = context
  const started = clock.elapsed()
  const parts: Buffer[] = []
  const errors: Buffer[] = []
  const hide = showRunning(stage, line)
  try {
    const exit = await stage.runProgram({
      argv: ['--json', ...words],
      env: { ...env, BACKSTOCK_CACHE_DIR: undefined },
      cwd: folder,
      stdin: Readable.from([]),
      stdout: collector(parts),
      stderr: collector(errors),
      clock,
      signal,
      version: '',
    })
    const events = parseEvents(Buffer.concat(parts))
    const summary = events.find(({ type }) => type === 'summary') ?? {}
    if (!exits.includes(exit)) throw asFailure(line, exit, events, Buffer.concat(errors))
    const seconds = (clock.elapsed() - started) / 1000
    return { line, exit, events, summary, seconds }
  } finally {
    hide()
  }
}

/** Shows on a terminal what is running now. Returns what takes it away again. */
function showRunning({ context: { printer } }: Stage, line: string): () => void {
  if (printer.json || printer.quiet || printer.err.isTTY !== true) return () => undefined
  printer.err.write(fitWidth(`${harmless(line)} …`, (printer.err.columns ?? 80) - 1))
  return () => void printer.err.write('\r\u001b[J')
}

/** Keeps what is written. */
function collector(parts: Buffer[]): Writable {
  return new Writable({
    write(chunk: Buffer, _, done) {
      parts.push(Buffer.from(chunk))
      done()
    },
  })
}

function parseEvents(output: Buffer): Facts[] {
  if (output.subarray(0, 2).toString() !== '{"') return []
  const lines = output.toString('utf8').trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line) as Facts)
}

/** The failure that the command printed, with its code, so that the demo ends as the command would. */
function asFailure(line: string, exit: number, events: readonly Facts[], errors: Buffer): Error {
  const error = events.find(({ type }) => type === 'error' || type === 'finding')
  const message = typeof error?.['message'] === 'string' ? error['message'] : `exit status ${exit}`
  const { code, hint } = error ?? {}
  if (typeof code === 'string' && isFailureCode(code)) {
    const facts = typeof hint === 'string' ? { hint } : {}
    return new Failure(code, `"${line}" failed: ${message}`, { facts })
  }
  return new Error(`"${line}" failed: ${message}\n${errors.toString('utf8')}`)
}

function isFailureCode(code: string): code is FailureCode {
  return Object.hasOwn(FAILURES, code)
}

/** Says what a command did, beside it, or below it where the terminal is narrow. */
export function showPlayed(
  stage: Stage,
  played: Pick<Played, 'line' | 'exit' | 'seconds'>,
  result: string,
): void {
  const { printer } = stage.context
  const { line: command, exit, seconds } = played
  printEvent(printer, {
    type: 'status',
    command: command.replace('$ ', ''),
    exit,
    seconds: Math.round(seconds * 1000) / 1000,
    result,
  })
  const columns = printer.out.isTTY === true ? (printer.out.columns ?? 80) : COLUMNS_ELSEWHERE
  const gap = Math.max(2, RESULT_COLUMN - displayWidth(command))
  const isLong = displayWidth(command) + gap + displayWidth(result) > columns
  const between = isLong || columns < WIDE_COLUMNS ? '\n    ' : ' '.repeat(gap)
  const [prompt, rest] = [command.slice(0, 2), command.slice(2)]
  const { colorOut } = printer
  say(
    stage,
    style(colorOut, 'dim', prompt) + style(colorOut, 'bold', harmless(rest)) + between + harmless(result),
  )
}

/** A sentence of the story. */
export function tell(stage: Stage, text = ''): void {
  say(stage, harmless(text))
}

function say({ context: { printer } }: Stage, text: string): void {
  if (!printer.json && !printer.quiet) writeText(printer, `${text}\n`)
}

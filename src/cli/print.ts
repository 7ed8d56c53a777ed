/**
 * Everything a command says. Results go to stdout, everything else to stderr. With --json stdout carries
 * NDJSON events only, one object a line. Text that came from outside is made harmless first: a file name must
 * not move the cursor.
 */
import { FAILURES, type Failure, type FailureFacts, describeError, isFailure } from '../base/failure.ts'
import { formatMoment } from './human.ts'
import { type Column, formatTable } from './table.ts'

/** stdout or stderr; tests give a plain Writable. */
export type OutputStream = NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }

/** A drawn line that must go before other text is written and come back after it: the progress bar. */
export interface Overlay {
  hide(): void
  show(): void
}

export interface Printer {
  readonly out: OutputStream
  readonly err: OutputStream
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
  readonly zone: 'utc' | 'local'
  readonly colorOut: boolean
  readonly colorErr: boolean
  overlay: Overlay | undefined
  /** Whoever read stdout has gone (`| head`): what follows is dropped. */
  outClosed: boolean
  /** The summary event is out: a run has one. */
  summarized: boolean
}

export interface PrinterOptions {
  readonly out: OutputStream
  readonly err: OutputStream
  readonly env: Readonly<Record<string, string | undefined>>
  readonly json?: boolean
  readonly quiet?: boolean
  readonly verbose?: boolean
  /** false: never colours. */
  readonly color?: boolean
  readonly localTime?: boolean
}

/**
 * What an NDJSON line is about. `status` repeats during long work; `summary` comes last; the rest are
 * results.
 */
export type EventType =
  | 'status'
  | 'summary'
  | 'error'
  | 'finding'
  | 'snapshot'
  | 'entry'
  | 'change'
  | 'key'
  | 'source'
  | 'timeline'
  | 'boot'

/** One line of --json. bigint values become decimal strings. */
export type JsonEvent = { readonly type: EventType } & Readonly<Record<string, unknown>>

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow'
const styleCodes: Record<Style, string> = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' }

export function newPrinter(options: PrinterOptions): Printer {
  const { out, err, env } = options
  return {
    out,
    err,
    json: options.json ?? false,
    quiet: options.quiet ?? false,
    verbose: options.verbose ?? false,
    zone: options.localTime === true ? 'local' : 'utc',
    colorOut: wantsColor(out, env, options.color ?? true),
    colorErr: wantsColor(err, env, options.color ?? true),
    overlay: undefined,
    outClosed: false,
    summarized: false,
  }
}

/** https://no-color.org: any non-empty NO_COLOR turns colours off. */
function wantsColor(stream: OutputStream, env: PrinterOptions['env'], color: boolean): boolean {
  if (!color || (env['NO_COLOR'] ?? '') !== '') return false
  return stream.isTTY === true && env['TERM'] !== 'dumb'
}

/** A line of the result. Nothing with --json. */
export function printLine(printer: Printer, text = ''): void {
  if (!printer.json) writeOut(printer, `${harmless(text)}\n`)
}

/**
 * A document that is the same with --json: a script, a schema. As it is; what comes from outside must be
 * harmless.
 */
export function writeText(printer: Printer, text: string): void {
  writeOut(printer, text)
}

/** A table of results, fitted to the terminal. Nothing with --json. */
export function printTable(printer: Printer, columns: readonly Column[], rows: readonly string[][]): void {
  if (printer.json) return
  const safe = rows.map((row) => row.map(harmless))
  const lines = formatTable(columns, safe, printer.out.isTTY === true ? printer.out.columns : undefined)
  const [header = '', ...rest] = lines
  writeOut(printer, [style(printer.colorOut, 'bold', header), ...rest, ''].join('\n'))
}

/** An NDJSON line. Nothing without --json. */
export function printEvent(printer: Printer, event: JsonEvent): void {
  if (!printer.json) return
  const line = JSON.stringify(event, (_, value: unknown) =>
    typeof value === 'bigint' ? String(value) : value,
  )
  writeOut(printer, `${line}\n`)
  if (event.type === 'summary') printer.summarized = true
}

/** The outcome of a command, said once: the event with --json, else the lines (none of them with --quiet). */
export function printSummary(
  printer: Printer,
  event: JsonEvent & { type: 'summary' },
  lines: readonly string[],
): void {
  printEvent(printer, event)
  if (!printer.quiet) for (const line of lines) printLine(printer, line)
}

/** Bytes as they are, for `cat`. Resolves when there is room for more. Rejects when `signal` aborts. */
export async function writeBytes(printer: Printer, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  if (printer.outClosed || printer.out.write(bytes)) return
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      for (const event of ['drain', 'close', 'error']) printer.out.removeListener(event, settle)
      signal.removeEventListener('abort', settle)
      if (signal.aborted) reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'))
      else resolve()
    }
    for (const event of ['drain', 'close', 'error']) printer.out.once(event, settle)
    signal.addEventListener('abort', settle)
  })
}

/** Something worth saying on the way. Not with --quiet. */
export function note(printer: Printer, text: string): void {
  if (!printer.quiet) writeErr(printer, harmless(text))
}

/** Something only --verbose wants to hear. */
export function detail(printer: Printer, text: string): void {
  if (printer.verbose) writeErr(printer, style(printer.colorErr, 'dim', harmless(text)))
}

/** Something that went wrong and does not end the run. */
export function warn(printer: Printer, text: string): void {
  writeErr(printer, `${style(printer.colorErr, 'yellow', 'warning:')} ${harmless(text)}`)
}

/** A check's or drill's result: an event with --json, else a line on stdout. */
export function printFinding(
  printer: Printer,
  finding: {
    readonly severity: 'error' | 'warning' | 'info'
    readonly message: string
    readonly facts?: FailureFacts
  },
): void {
  printEvent(printer, { type: 'finding', ...finding })
  if (printer.json) return
  const color = { error: 'red', warning: 'yellow', info: 'dim' } as const
  const label = style(printer.colorOut, color[finding.severity], `${finding.severity}:`)
  writeOut(printer, `${label} ${harmless(finding.message)}\n`)
}

/** Says why the run ended, and what to do. Returns the exit status. */
export function printFailure(printer: Printer, error: unknown): number {
  if (!isFailure(error)) return printBug(printer, error)
  const { exit, hint } = FAILURES[error.code]
  const { hint: better, ...facts } = error.facts
  const advice = typeof better === 'string' ? better : hint
  printEvent(printer, { type: 'error', code: error.code, message: error.message, hint: advice, exit, facts })
  // Where the event cannot be read any more the words must be.
  if (!printer.json || printer.outClosed) {
    writeErr(printer, `${style(printer.colorErr, 'red', 'backstock:')} ${harmless(error.message)}`)
    writeErr(printer, style(printer.colorErr, 'dim', `  ${harmless(advice)}`))
  }
  for (const line of causes(error)) detail(printer, line)
  return exit
}

/**
 * The summary event of a run that failed as a whole, unless its own is out: whoever reads events waits for
 * one. It repeats what the error event before it says. `command`: undefined if the command line was not
 * understood.
 */
export function printFailedSummary(printer: Printer, command: string | undefined, error: unknown): void {
  if (printer.summarized) return
  const [code, exit] = isFailure(error) ? [error.code, FAILURES[error.code].exit] : ['bug', 1]
  printEvent(printer, { type: 'summary', command, code, message: describeError(error), exit })
}

function printBug(printer: Printer, error: unknown): number {
  const message = describeError(error)
  const stack = error instanceof Error ? (error.stack ?? message) : message
  const hint = 'This is a bug in Backstock. Please report it with the lines below and the command you ran.'
  printEvent(printer, { type: 'error', code: 'bug', message, hint, exit: 1, facts: {} })
  writeErr(printer, `${style(printer.colorErr, 'red', 'backstock:')} ${harmless(message)}`)
  writeErr(printer, `  ${hint}`)
  writeErr(printer, harmless(stack))
  return 1
}

const causesMax = 8

function causes(error: Failure): string[] {
  const lines: string[] = []
  let cause = error.cause
  while (cause !== undefined && cause !== null && lines.length < causesMax) {
    lines.push(`  because: ${describeError(cause)}`)
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return lines
}

/** A time as this run shows times. */
export function showMoment(printer: Printer, milliseconds: number): string {
  return formatMoment(milliseconds, printer.zone)
}

/** `text` in a style, or as it is. Give it harmless text. */
export function style(on: boolean, name: Style, text: string): string {
  return on && text !== '' ? `\u001b[${styleCodes[name]}m${text}\u001b[0m` : text
}

/**
 * Escapes what would act on a terminal instead of being shown: control characters (line breaks and tabs stay)
 * and characters that turn the direction of writing.
 */
export function harmless(text: string): string {
  return text.replace(
    // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (char) => {
      const code = char.charCodeAt(0)
      return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16)}`
    },
  )
}

function writeOut(printer: Printer, text: string): void {
  if (printer.outClosed) return
  printer.overlay?.hide()
  printer.out.write(text)
  printer.overlay?.show()
}

function writeErr(printer: Printer, text: string): void {
  printer.overlay?.hide()
  printer.err.write(`${text}\n`)
  printer.overlay?.show()
}

/**
 * What long work shows of itself: a bar on a terminal (stderr), a line every 30 s elsewhere, `status` events
 * with --json, nothing with --quiet. It never slows the work: drawing is bounded by time, not by calls.
 */
import type { Clock } from '../base/clock.ts'
import { formatBytes, formatCount, formatCountdown, formatCounted, formatRate } from './human.ts'
import { type Printer, harmless, printEvent } from './print.ts'
import { displayWidth, fitWidth } from './table.ts'

/** How far the work is. Totals are left out while they are unknown. */
export interface ProgressState {
  readonly files: number
  readonly filesTotal?: number | undefined
  readonly bytes: number
  readonly bytesTotal?: number | undefined
  /** What is being worked on, as people read it (displayName). */
  readonly current?: string | undefined
  /** Things that could not be read or written so far. */
  readonly errors?: number | undefined
}

export interface Progress {
  readonly printer: Printer
  readonly clock: Clock
  /** What the work is, as the line begins: `backup media`. */
  readonly what: string
  readonly mode: 'bar' | 'lines' | 'events' | 'none'
  readonly begun: number
  state: ProgressState
  shownAt: number
  shown: boolean
  /** Columns of what is drawn, to wipe it. */
  drawnColumns: number
  rate: Rate
  timer: NodeJS.Timeout | undefined
}

/** Bytes a second, smoothed over about ten seconds. */
interface Rate {
  at: number
  bytes: number
  perSecond: number | undefined
}

const drawEveryMs = 100
const eventEveryMs = 1000
const lineEveryMs = 30_000
const rateWindowMs = 10_000
const rateSampleMs = 250
const columnsMin = 20

/** Begins to show progress. The caller ends it with endProgress(), also after a failure. */
export function beginProgress(
  printer: Printer,
  clock: Clock,
  what: string,
  options: { readonly timer?: boolean } = {},
): Progress {
  const now = clock.elapsed()
  const progress: Progress = {
    printer,
    clock,
    what,
    mode: modeOf(printer),
    begun: now,
    state: { files: 0, bytes: 0 },
    shownAt: now,
    shown: false,
    drawnColumns: 0,
    rate: { at: now, bytes: 0, perSecond: undefined },
    timer: undefined,
  }
  if (progress.mode === 'none') return progress
  if (progress.mode === 'bar') {
    printer.overlay = { hide: () => wipe(progress), show: () => draw(progress) }
  }
  // Without it a bar would stand still while one huge file is read.
  if (options.timer !== false) progress.timer = setInterval(() => tickProgress(progress), drawEveryMs).unref()
  return progress
}

function modeOf(printer: Printer): Progress['mode'] {
  if (printer.quiet) return 'none'
  if (printer.json) return 'events'
  return printer.err.isTTY === true ? 'bar' : 'lines'
}

/** Takes over how far the work is; cheap enough to be called for every file. */
export function updateProgress(progress: Progress, state: ProgressState): void {
  progress.state = state
  tickProgress(progress)
}

/** Shows the state if it is time to. */
function tickProgress(progress: Progress): void {
  if (progress.mode === 'none') return
  const now = progress.clock.elapsed()
  const every = { bar: drawEveryMs, events: eventEveryMs, lines: lineEveryMs }[progress.mode]
  sampleRate(progress, now)
  if (now - progress.shownAt < every) return
  progress.shownAt = now
  progress.shown = true
  if (progress.mode === 'events') printEvent(progress.printer, { type: 'status', ...statusFacts(progress) })
  else if (progress.mode === 'lines') progress.printer.err.write(`${statusParts(progress).join(', ')}\n`)
  else draw(progress)
}

/** Stops showing: the bar goes away, the timer ends. Harmless when called twice. */
export function endProgress(progress: Progress): void {
  clearInterval(progress.timer)
  if (progress.mode !== 'bar') return
  wipe(progress)
  progress.printer.overlay = undefined
}

function sampleRate(progress: Progress, now: number): void {
  const { rate, state } = progress
  const spent = now - rate.at
  if (spent < rateSampleMs) return
  const perSecond = (Math.max(0, state.bytes - rate.bytes) / spent) * 1000
  const weight = 1 - Math.exp(-spent / rateWindowMs)
  // At first the window is empty: take the average so far instead of falling from zero.
  const average = (state.bytes / Math.max(1, now - progress.begun)) * 1000
  const before = now - progress.begun < rateWindowMs ? average : (rate.perSecond ?? average)
  progress.rate = { at: now, bytes: state.bytes, perSecond: before + (perSecond - before) * weight }
}

/** Seconds left, or undefined while that would be a guess. */
function secondsLeft(progress: Progress): number | undefined {
  const { bytes, bytesTotal } = progress.state
  const perSecond = progress.rate.perSecond
  if (bytesTotal === undefined || perSecond === undefined || perSecond < 1) return undefined
  return Math.max(0, bytesTotal - bytes) / perSecond
}

function fractionDone(state: ProgressState): number | undefined {
  if (state.bytesTotal !== undefined && state.bytesTotal > 0)
    return Math.min(1, state.bytes / state.bytesTotal)
  if (state.filesTotal !== undefined && state.filesTotal > 0)
    return Math.min(1, state.files / state.filesTotal)
  return undefined
}

function statusFacts(progress: Progress): Record<string, unknown> {
  const { current: _, ...numbers } = progress.state
  return {
    what: progress.what,
    seconds: Math.round((progress.clock.elapsed() - progress.begun) / 100) / 10,
    ...numbers,
    percent: percentOf(progress.state),
    bytesPerSecond: progress.rate.perSecond === undefined ? undefined : Math.round(progress.rate.perSecond),
    secondsLeft: roundedUp(secondsLeft(progress)),
  }
}

function percentOf(state: ProgressState): number | undefined {
  const fraction = fractionDone(state)
  return fraction === undefined ? undefined : Math.floor(fraction * 1000) / 10
}

function roundedUp(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.ceil(value)
}

/** The parts of a line, the most important first: a narrow terminal shows fewer. */
function statusParts(progress: Progress): string[] {
  const { state, rate } = progress
  const fraction = fractionDone(state)
  const left = secondsLeft(progress)
  const bytes = formatBytes(state.bytes)
  const files = state.filesTotal === undefined ? '' : ` of ${formatCount(state.filesTotal)}`
  const parts = [
    progress.what,
    fraction === undefined ? '' : `${Math.floor(fraction * 100)} %`,
    state.bytesTotal === undefined ? bytes : `${bytes} of ${formatBytes(state.bytesTotal)}`,
    rate.perSecond === undefined ? '' : formatRate(rate.perSecond),
    left === undefined ? '' : `${formatCountdown(left)} left`,
    state.filesTotal === undefined
      ? formatCounted(state.files, 'file')
      : `${formatCount(state.files)}${files} files`,
    (state.errors ?? 0) > 0 ? formatCounted(state.errors ?? 0, 'error') : '',
  ]
  return parts.filter((part) => part !== '')
}

/** One line of at most `columns` columns. */
export function progressLine(progress: Progress, columns: number): string {
  const width = Math.max(columnsMin, columns) - 1
  const fraction = fractionDone(progress.state)
  const barColumns = width < 60 ? 0 : width < 100 ? 10 : 20
  let line = fraction === undefined || barColumns === 0 ? '' : bar(fraction, barColumns)
  for (const part of statusParts(progress)) {
    const longer = line === '' ? part : `${line}  ${part}`
    if (displayWidth(longer) > width) break
    line = longer
  }
  const room = width - displayWidth(line) - 2
  const current = harmless(progress.state.current ?? '')
  if (current !== '' && room >= columnsMin) line += `  ${fitWidth(current, room, 'start')}`
  return fitWidth(line, width)
}

function bar(fraction: number, columns: number): string {
  const done = Math.floor(fraction * columns)
  return `[${'='.repeat(done)}${' '.repeat(columns - done)}]`
}

function draw(progress: Progress): void {
  if (!progress.shown) return
  wipe(progress)
  const columns = progress.printer.err.columns ?? 80
  const line = progressLine(progress, columns)
  progress.printer.err.write(line)
  progress.drawnColumns = displayWidth(line)
}

/** Removes what is drawn; when the terminal became narrower since, the line lies on several rows. */
function wipe(progress: Progress): void {
  if (progress.drawnColumns === 0) return
  const columns = Math.max(1, progress.printer.err.columns ?? 80)
  const rowsUp = Math.max(0, Math.ceil(progress.drawnColumns / columns) - 1)
  progress.printer.err.write(`${rowsUp > 0 ? `\u001b[${rowsUp}A` : ''}\r\u001b[J`)
  progress.drawnColumns = 0
}

/**
 * `backstock demo`: a made-up shop is backed up, lost and brought back before one's eyes, in a folder that is
 * removed afterwards, whatever happens.
 */
import { mkdirSync, mkdtempSync, realpathSync, rmdirSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { describeError, errnoOf, Failure } from '../../base/failure.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { SHOP_BYTES } from '../demo/shop.ts'
import { type ClusterStory, playClusterStory } from '../demo/cluster-story.ts'
import { openStage } from '../demo/stage.ts'
import { playStory, type Point, type Story, type StoryOptions } from '../demo/story.ts'
import { formatBytes, formatCount, formatCounted, formatDuration } from '../human.ts'
import { type Printer, printEvent, printFinding, printLine, printSummary, printTable } from '../print.ts'
import type { Column } from '../table.ts'

/** Folders of the demo, from the shop's size: shop, repository, and a restored shop; with --keep all of them. */
const SPACE_FACTOR = 4
const SPACE_FACTOR_KEPT = 7
const SCALE_MIN = 0.01
const SCALE_MAX = 100
const WRONG_SHOWN_MAX = 10

/** 80 columns wide. */
const columns: readonly Column[] = [
  { title: 'DAY', align: 'right' },
  { title: 'KIND' },
  { title: 'READ', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'TIME', align: 'right' },
  { title: 'AS A FULL', align: 'right' },
  { title: 'NEEDS' },
  { title: 'BACK IN', align: 'right' },
]
const databaseColumns: readonly Column[] = [
  { title: 'POSTGRESQL' },
  { title: 'ORDERS ACKNOWLEDGED', align: 'right' },
  { title: 'BACK', align: 'right' },
  { title: 'LOST', align: 'right' },
  { title: 'RUNNING AGAIN IN', align: 'right' },
]
const legend = [
  'AS A FULL: what a full backup of that day would have stored (a dry run). NEEDS: sets of packs that a',
  'restore reads: a differential always two, an incremental those that it was built on.',
]

const closing = [
  'You have seen full, incremental and differential backups, a check of every byte,',
  'a lost shop back as it was on each day, each file proven equal by SHA-256, and a key that stores and',
  'opens nothing. Now your own: write a backstock.yaml, then `backstock init` and `backstock backup`.',
]

export async function run(context: CommandContext, input: InputOf<'demo'>): Promise<number> {
  return runDemo(context, input, {})
}

/** The demo; `meddle` is for tests of its proof. */
export async function runDemo(
  context: CommandContext,
  input: InputOf<'demo'>,
  { meddle }: Pick<StoryOptions, 'meddle'>,
): Promise<number> {
  const started = context.clock.elapsed()
  const scale = readScale(input.scale)
  const place = makePlace(context, input, scale)
  const clean = (): void => removePlace(place)
  // Also when a second Ctrl-C ends the process at once.
  if (!input.keep) process.once('exit', clean)
  try {
    const stage = await openStage(context, place.folder)
    const options = { scale, keep: input.keep, ...(meddle === undefined ? {} : { meddle }) }
    const story = await playStory(stage, options)
    // Tests of the first story's proof do without the second.
    const database = meddle === undefined ? await playClusterStory(stage) : undefined
    const seconds = (context.clock.elapsed() - started) / 1000
    return printStory(
      context,
      { ...story, database },
      { seconds, kept: input.keep ? place.folder : undefined },
    )
  } catch (cause) {
    if (!context.signal.aborted) throw cause
    const hint = input.keep ? 'What there was is still there.' : 'Nothing of the demo is left behind.'
    throw new Failure('cancelled', 'Cancelled', { facts: { hint }, cause })
  } finally {
    process.off('exit', clean)
    if (!input.keep) clean()
    else if (!context.printer.json) printLine(context.printer, `Everything is in ${place.folder}`)
  }
}

interface Place {
  readonly folder: string
  /** Folders around it that the demo made too, the inner first. */
  readonly made: readonly string[]
}

function readScale(text: string): number {
  const scale = Number(text)
  if (scale >= SCALE_MIN && scale <= SCALE_MAX) return scale
  throw new Failure('usage.invalid', `Cannot use --scale "${text}": it must be ${SCALE_MIN} to ${SCALE_MAX}`)
}

/** A new folder, of nobody else's. Fails: host.file. */
function makePlace(context: CommandContext, input: InputOf<'demo'>, scale: number): Place {
  const around = resolve(context.cwd, input.dir ?? context.env['TMPDIR'] ?? tmpdir())
  const facts = { dir: around, hint: 'Name another place with --dir DIR.' }
  try {
    const made = foldersBetween(mkdirSync(around, { recursive: true }), around)
    const { bavail, bsize } = statfsSync(around)
    const bytes = SHOP_BYTES * scale * (input.keep ? SPACE_FACTOR_KEPT : SPACE_FACTOR)
    if (bavail * bsize < bytes) {
      const is = `${formatBytes(bavail * bsize)} are free (it needs ${formatBytes(bytes)})`
      throw new Failure('host.file', `Cannot build the demo in "${around}": ${is}`, { facts })
    }
    // The real path, since that is how backups name it.
    const folder = realpathSync(mkdtempSync(join(around, 'backstock-demo-')))
    return { folder, made }
  } catch (cause) {
    if (errnoOf(cause) === undefined) throw cause
    const message = `Cannot build the demo in "${around}": ${describeError(cause)}`
    throw new Failure('host.file', message, { facts, cause })
  }
}

function removePlace({ folder, made }: Place): void {
  // A thread that is being ended may still write.
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  try {
    for (const around of made) rmdirSync(around)
  } catch (error) {
    // Somebody put something beside it.
    if (errnoOf(error) === undefined) throw error
  }
}

/** `inner` and the folders above it, up to `outer`. */
function foldersBetween(outer: string | undefined, inner: string): string[] {
  const folders: string[] = []
  if (outer === undefined) return folders
  for (let at = inner; at.length >= outer.length; at = dirname(at)) folders.push(at)
  return folders
}

function printStory(
  { printer }: CommandContext,
  story: Story & { readonly database: ClusterStory | undefined },
  { seconds, kept }: { seconds: number; kept: string | undefined },
): number {
  const { points, delta, catExit, database } = story
  const wrong = [...story.wrong, ...(database?.wrong ?? [])]
  const exit = wrong.length > 0 ? 1 : 0
  for (const point of points) printEvent(printer, { type: 'snapshot', ...pointFacts(point) })
  printLine(printer)
  printTable(printer, columns, points.map(rowOf))
  if (!printer.quiet) for (const line of [...legend, '']) printLine(printer, line)
  for (const message of wrong.slice(0, WRONG_SHOWN_MAX)) printFinding(printer, { severity: 'error', message })
  printDatabase(printer, database)
  const event = {
    command: 'demo',
    points: points.length,
    delta,
    catExit,
    database,
    wrong: wrong.length,
    kept,
  }
  const rounded = Math.round(seconds * 1000) / 1000
  const total = formatDuration(seconds * 1000)
  const lines =
    exit === 0 ? [`${total} in all. ${closing[0]}`, ...closing.slice(1)] : [`NOT proven, after ${total}.`]
  printSummary(printer, { type: 'summary', ...event, seconds: rounded, exit }, lines)
  return exit
}

function printDatabase(printer: Printer, database: ClusterStory | undefined): void {
  if (printer.quiet) return
  if (database === undefined) {
    printLine(printer, 'There is no PostgreSQL server on this host: its part of the demo was left out.')
    return
  }
  const { before, lost } = database
  const time = (seconds: number): string => formatDuration(seconds * 1000)
  printTable(printer, databaseColumns, [
    [
      'DELETE without WHERE',
      ...[before.orders, before.back, before.missing].map(formatCount),
      time(before.seconds),
    ],
    ['host lost', ...[lost.acknowledged, lost.recovered, lost.missing].map(formatCount), time(lost.seconds)],
  ])
  printLine(printer)
}

function rowOf(point: Point): string[] {
  const { day, kind, bytesRead, bytesStored, seconds, asFull, packSets, restoreSeconds } = point
  return [
    String(day),
    kind,
    formatBytes(bytesRead),
    formatBytes(bytesStored),
    formatDuration(seconds * 1000),
    `${formatBytes(asFull.bytesStored)}, ${formatDuration(asFull.seconds * 1000)}`,
    formatCounted(packSets, 'set'),
    formatDuration(restoreSeconds * 1000),
  ]
}

function pointFacts(point: Point): Record<string, unknown> {
  const { manifest: _, orders, snapshot: id, ...numbers } = point
  return { id, ...numbers, orders: orders.orders }
}

/**
 * The demo's story: a shop lives for four days and is backed up, is lost, and comes back as it was on each
 * of them. Every claim is proven against what was there (manifest.ts); what is not equal is a finding.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { formatBytes, formatCount, formatCounted, formatDuration } from '../human.ts'
import { compareManifests, countFiles, type Manifest, takeManifest } from './manifest.ts'
import { inspectOrders, type OrderState } from './order-database.ts'
import { buildShop, type DayChanges, ORDERS_FILE, passDay, PRODUCTS_FILE, type Shop } from './shop.ts'
import { play, type Played, showPlayed, type Stage, tell } from './stage.ts'

/** A moment of the shop, as it was and as it was stored. */
export interface Point {
  readonly day: number
  readonly kind: string
  readonly snapshot: string
  readonly manifest: Manifest
  readonly orders: OrderState
  readonly bytesRead: number
  readonly bytesStored: number
  readonly seconds: number
  /** What a full backup would have cost on that day, measured by a dry run. */
  readonly asFull: { readonly bytesStored: number; readonly seconds: number }
  packSets: number
  restoreSeconds: number
}

export interface Story {
  readonly stage: Stage
  readonly points: Point[]
  /** What was not as it must be, a sentence each. */
  readonly wrong: string[]
  delta: { readonly bytes: number; readonly bytesWritten: number } | undefined
  catExit: number | undefined
}

export interface StoryOptions {
  readonly scale: number
  /** Leave restored folders in place. */
  readonly keep: boolean
  /** For tests of the proof: called with the shop's folder after each restore. */
  readonly meddle?: (restored: string) => void
}

const KINDS = ['full', 'incremental', 'differential', 'incremental'] as const
/** A file younger than this is read again by the next backup, since it may have changed within one tick. */
const SETTLE_MS = 2050
const EXIT_KEY = 12

const CONFIG = `shop: acme
repository:
  store: file://FOLDER/repository
  identity: identity.age
  cache: cache
sources:
  shop: { kind: files, paths: [shop] }
`
const WRITER_CONFIG = `shop: acme
repository:
  store: file://FOLDER/repository
  writer: web1.json
  cache: web1-cache
sources:
  exports: { kind: files, paths: [shop/exports] }
`

/** Plays everything. What it proved and what not is in the story. Fails as the commands do. */
export async function playStory(stage: Stage, options: StoryOptions): Promise<Story> {
  const story: Story = { stage, points: [], wrong: [], delta: undefined, catExit: undefined }
  const shop = await openShop(story, options.scale)
  for (const kind of KINDS) await liveDay(story, shop, kind) // 1. backups of each kind
  await tryWriter(story) //                                     2. a host that may write and not read
  await checkAll(story) //                                      3. every stored byte
  await loseShop(story, shop) //                                4. the loss
  for (const point of story.points) await bringBack(story, shop, point, options) // 5. each day again
  await undoDay(story, shop, options) //                        6. one day over another
  return story
}

async function openShop({ stage }: Story, scale: number): Promise<Shop> {
  const { folder, context } = stage
  tell(stage, `A made-up shop, acme, is built in ${folder}`)
  const shop = await buildShop(join(folder, 'shop'), scale, context.signal)
  const builtAt = context.clock.elapsed()
  const url = encodeURI(folder)
  await writeFile(join(folder, 'backstock.yaml'), CONFIG.replace('FOLDER', url), { mode: 0o600 })
  await writeFile(join(folder, 'web1.yaml'), WRITER_CONFIG.replace('FOLDER', url), { mode: 0o600 })
  const { files, bytes } = countFiles(await takeManifest(shop.folder, context.signal))
  const { orders } = inspectOrders(join(shop.folder, ORDERS_FILE))
  const what = `${formatCounted(files, 'file')}, ${formatBytes(bytes)}`
  tell(stage, `Images, exports, logs and a SQLite database of ${formatCount(orders)} orders: ${what}`)
  tell(stage)
  const init = await play(stage, ['init'])
  showPlayed(stage, init, 'repository and recovery kit made')
  const settleMs = SETTLE_MS - (context.clock.elapsed() - builtAt)
  await setTimeout(Math.max(0, settleMs), undefined, { signal: context.signal })
  return shop
}

async function liveDay(story: Story, shop: Shop, kind: (typeof KINDS)[number]): Promise<void> {
  const { stage, points } = story
  if (points.length > 0) tellDay(stage, shop, await passDay(shop))
  const manifest = await takeManifest(shop.folder, stage.context.signal)
  const orders = inspectOrders(join(shop.folder, ORDERS_FILE))
  const words = ['backup', 'shop', '--kind', kind]
  const backup = await play(stage, words)
  const stored = formatBytes(numberIn(backup, 'bytesStored'))
  const read = formatBytes(numberIn(backup, 'bytesRead'))
  showPlayed(stage, backup, `${read} read, ${stored} stored in ${timeOf(backup)}`)
  const full = kind === 'full' ? backup : await play(stage, ['backup', 'shop', '--kind', 'full', '--dry-run'])
  if (backup.summary['kind'] !== kind) story.wrong.push(`the backup of day ${shop.day} is not ${kind}`)
  points.push({
    day: shop.day,
    kind,
    snapshot: String(backup.summary['snapshot']),
    manifest,
    orders,
    bytesRead: numberIn(backup, 'bytesRead'),
    bytesStored: numberIn(backup, 'bytesStored'),
    seconds: numberIn(backup, 'seconds'),
    asFull: { bytesStored: numberIn(full, 'bytesStored'), seconds: numberIn(full, 'seconds') },
    packSets: 0,
    restoreSeconds: 0,
  })
}

function tellDay(stage: Stage, { day }: Shop, changes: DayChanges): void {
  const { ordersPlaced, ordersChanged, imagesAdded, imagesReplaced, imagesRenamed, imagesDeleted } = changes
  const orders = `${formatCount(ordersPlaced)} orders placed, ${formatCount(ordersChanged)} changed`
  const images = `images ${imagesAdded} new, ${imagesReplaced} replaced, ${imagesRenamed} renamed`
  tell(stage, `Day ${day}: ${orders}; ${images}, ${imagesDeleted} deleted; a CSV edited`)
}

/** A web server gets a key that stores backups and opens none. */
async function tryWriter(story: Story): Promise<void> {
  const { stage } = story
  const file = join(stage.folder, 'shop', PRODUCTS_FILE)
  tell(stage)
  const made = await play(stage, ['key', 'writer', 'web1', '--out', 'web1.json'])
  showPlayed(stage, made, 'a key for a host that may only write')
  const stored = await play(stage, ['-c', 'web1.yaml', 'backup', 'exports'])
  showPlayed(stage, stored, `${formatBytes(numberIn(stored, 'bytesStored'))} stored`)
  const words = ['cat', 'exports:latest', file]
  const refused = await play(stage, ['-c', 'web1.yaml', ...words], [0, EXIT_KEY])
  story.catExit = refused.exit
  const shown = { ...refused, line: `$ backstock -c web1.yaml cat exports:latest …/${PRODUCTS_FILE}` }
  const isRefused = refused.exit === EXIT_KEY
  showPlayed(stage, shown, isRefused ? `refused, exit ${EXIT_KEY}: it cannot read` : 'NOT refused')
  if (!isRefused) story.wrong.push('a key that may only write could read')
}

async function checkAll({ stage, points, wrong }: Story): Promise<void> {
  const checked = await play(stage, ['check', '--read-data'], [0, 1])
  const { bytesRead } = checked.summary['coverage'] as { bytesRead: number }
  const isSound = checked.exit === 0
  const found = isSound ? 'all sound' : 'NOT all sound'
  showPlayed(stage, checked, `${formatBytes(bytesRead)} read, ${found}, in ${timeOf(checked)}`)
  for (const { type, severity, message } of checked.events)
    if (type === 'finding' && severity === 'error') wrong.push(`check: ${String(message)}`)
  if (!isSound && wrong.length === 0) wrong.push('check: it found an error')
  const { events } = await play(stage, ['snapshots', 'shop'])
  for (const point of points) {
    const listed = events.find(({ id }) => id === point.snapshot)
    point.packSets = Number(listed?.['packSets'])
  }
}

async function loseShop({ stage }: Story, shop: Shop): Promise<void> {
  const started = stage.context.clock.elapsed()
  await rm(shop.folder, { recursive: true })
  const seconds = (stage.context.clock.elapsed() - started) / 1000
  tell(stage)
  showPlayed(stage, { line: '$ rm -rf shop', exit: 0, seconds }, 'the shop is gone')
}

async function bringBack(story: Story, shop: Shop, point: Point, options: StoryOptions): Promise<void> {
  const { stage, points } = story
  const to = `day${point.day}`
  const restored = await play(stage, ['restore', 'shop', '--to', to, '--snapshot', shortId(point)])
  point.restoreSeconds = numberIn(restored, 'seconds')
  const place = restoredShop(stage, shop, to)
  options.meddle?.(place)
  const proof = await prove(story, point, place, 'refused')
  showPlayed(stage, restored, `${proof}, ${timeOf(restored)}`)
  if (!options.keep && point !== points.at(-1)) await rm(join(stage.folder, to), { recursive: true })
}

/** The last day is undone in place, and little is written. */
async function undoDay(story: Story, shop: Shop, options: StoryOptions): Promise<void> {
  const { stage, points } = story
  const [before, last] = points.slice(-2)
  if (before === undefined || last === undefined) return
  const to = `day${last.day}`
  const words = ['restore', 'shop', '--to', to, '--snapshot', shortId(before), '--delta']
  const restored = await play(stage, words)
  const [bytes, bytesWritten] = [numberIn(restored, 'bytes'), numberIn(restored, 'bytesWritten')]
  story.delta = { bytes, bytesWritten }
  const place = restoredShop(stage, shop, to)
  options.meddle?.(place)
  // Files that came later stay: a restore deletes nothing.
  const proof = await prove(story, before, place, 'allowed')
  showPlayed(stage, restored, `${formatBytes(bytesWritten)} written; ${proof}`)
}

/** Holds a restored shop against what it was. Returns what to say of it. */
async function prove(
  { stage, wrong }: Story,
  point: Point,
  place: string,
  extras: 'refused' | 'allowed',
): Promise<string> {
  const found = await takeManifest(place, stage.context.signal)
  const differences = compareManifests(point.manifest, found, extras)
  const orders = found.has(ORDERS_FILE) ? inspectRestored(join(place, ORDERS_FILE)) : undefined
  const { integrity } = orders ?? { integrity: 'it is missing' }
  if (integrity !== 'ok') differences.push(`the order database is not sound: ${integrity}`)
  else if (orders?.orders !== point.orders.orders || orders.turnover !== point.orders.turnover)
    differences.push('the order database holds other orders')
  const day = `day ${point.day}`
  wrong.push(...differences.map((text) => `${day}: ${text}`))
  if (differences.length > 0) return `NOT equal: ${formatCounted(differences.length, 'difference')}`
  const { files } = countFiles(point.manifest)
  return `${formatCount(files)} files equal, ${formatCount(point.orders.orders)} orders`
}

/** A database that cannot even be opened is a difference as well, not the end of the demo. */
function inspectRestored(file: string): OrderState {
  try {
    return inspectOrders(file)
  } catch (error) {
    return { orders: 0, turnover: 0, integrity: error instanceof Error ? error.message : String(error) }
  }
}

/** Files keep their absolute path below the folder that they are restored to. */
function restoredShop(stage: Stage, shop: Shop, to: string): string {
  return join(stage.folder, to, shop.folder)
}

function shortId({ snapshot }: Point): string {
  return snapshot.slice(-8)
}

function numberIn({ summary }: Played, key: string): number {
  return Number(summary[key])
}

function timeOf(played: Played): string {
  return formatDuration(numberIn(played, 'seconds') * 1000)
}

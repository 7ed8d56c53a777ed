/**
 * The demo's second story: a shop on PostgreSQL takes orders all the time. It is backed up under load; a
 * DELETE without WHERE takes all orders, and they come back as of just before; then the host is lost with its
 * data. What was acknowledged, what came back and how long it took is counted.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { closeSql, runSql } from '../../sources/postgres/sql-session.ts'
import { formatBytes, formatCount, formatDuration } from '../human.ts'
import { findPrograms, killCluster, makeCluster, startCluster, stopCluster, type Cluster } from './cluster.ts'
import { connectShop, openLiveShop, ordersOf, type LiveShop } from './live-shop.ts'
import { play, type Played, showPlayed, type Stage, tell } from './stage.ts'

export interface ClusterStory {
  /** Orders at the moment before the DELETE, and those that came back of them. */
  readonly before: {
    readonly orders: number
    readonly back: number
    readonly missing: number
    readonly seconds: number
  }
  /** When the host was lost. */
  readonly lost: {
    readonly acknowledged: number
    readonly recovered: number
    readonly missing: number
    /** From the loss until orders could be taken again. */
    readonly seconds: number
  }
  /** What was not as it must be, a sentence each. */
  readonly wrong: readonly string[]
}

interface Scene {
  readonly stage: Stage
  /** Holds the data of the servers. */
  readonly folder: string
  readonly clusters: Cluster[]
  readonly wrong: string[]
}

const ORDERS_AT_FIRST = 20_000
/** Long enough for a few thousand orders. */
const BUSY_MS = 1500
/** The log is in the repository a second after it was written. */
const SHIPPED_MS = 2500
const CONFIG = `shop: acme
repository:
  store: file://FOLDER/db-repository
  identity: db-identity.age
  cache: db-cache
  spool: db-spool
sources:
  orders:
    kind: postgres
    url: postgres://postgres@127.0.0.1:PORT/postgres
    logs: stream
    checkpoint: fast
`

/** undefined: this host has no PostgreSQL server to play with. Fails as the commands do. */
export async function playClusterStory(stage: Stage): Promise<ClusterStory | undefined> {
  // As root the server is another user's, who must reach its data, wherever the demo's own folder lies.
  const isRoot = process.getuid?.() === 0
  const folder = isRoot ? mkdtempSync(join(tmpdir(), 'backstock-demo-')) : stage.folder
  if (isRoot) chmodSync(folder, 0o711)
  const scene: Scene = { stage, folder, clusters: [], wrong: [] }
  // Also when a second Ctrl-C ends the process at once.
  const clean = (): void => {
    for (const { process: server } of scene.clusters) server.kill('SIGKILL')
    if (isRoot) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  process.once('exit', clean)
  try {
    return await playIn(scene)
  } finally {
    process.off('exit', clean)
    clean()
  }
}

async function playIn(scene: Scene): Promise<ClusterStory | undefined> {
  const programs = findPrograms(scene.folder)
  if (programs === undefined) return undefined
  const stop = new AbortController()
  try {
    const live = await makeCluster(programs, join(scene.folder, 'db'))
    scene.clusters.push(live)
    return await playOn(scene, live, stop)
  } finally {
    stop.abort()
    for (const cluster of scene.clusters) await stopCluster(cluster)
  }
}

async function playOn(scene: Scene, live: Cluster, stop: AbortController): Promise<ClusterStory> {
  const { stage, wrong } = scene
  const { folder, context } = stage
  const config = CONFIG.replace('FOLDER', encodeURI(folder)).replace('PORT', String(live.port))
  await writeFile(join(folder, 'db.yaml'), config, { mode: 0o600 })
  tell(stage)
  tell(
    stage,
    `A second shop runs on PostgreSQL: ${formatCount(ORDERS_AT_FIRST)} orders, and more all the time`,
  )
  const shop = await openLiveShop(live, ORDERS_AT_FIRST)
  try {
    await play(stage, ['-c', 'db.yaml', 'init'])
    const shipping = startShipping(stage, stop)
    const backup = await play(stage, ['-c', 'db.yaml', 'backup', 'orders'])
    const read = formatBytes(numberIn(backup, 'bytesRead'))
    showPlayed(stage, backup, `${read} read while orders came in, in ${timeOf(backup)}`)
    await setTimeout(BUSY_MS, undefined, { signal: context.signal })
    const { deletedUpTo, ...before } = await undoDelete(scene, live, shop)
    const lost = await loseHost(scene, live, { shop, stop, shipping, deletedUpTo })
    return { before, lost, wrong }
  } finally {
    await shop.close()
  }
}

/** `backstock ship` beside everything else, as a service would run it. */
function startShipping(stage: Stage, stop: AbortController): Promise<Played> {
  const signal = AbortSignal.any([stage.context.signal, stop.signal])
  const own = { ...stage, context: { ...stage.context, signal } }
  const playing = play(own, ['-c', 'db.yaml', 'ship'], [0, 130])
  // Its failure is told where it is awaited.
  playing.catch(() => undefined)
  return playing
}

async function undoDelete(
  scene: Scene,
  live: Cluster,
  shop: LiveShop,
): Promise<ClusterStory['before'] & { readonly deletedUpTo: number }> {
  const { stage, wrong } = scene
  const session = await connectShop(live)
  // The clock of the server counts; the pause makes sure that no order shares the moment.
  const orders = new Set(shop.acknowledged)
  const [[moment = ''] = []] = await runSql(
    session,
    'select to_char(clock_timestamp() at time zone $1, $2)',
    ['UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'],
  )
  const gone = 'with gone as (delete from public.orders returning id) select max(id) from gone'
  const [[deletedUpTo = '0'] = []] = await runSql(session, gone)
  await closeSql(session)
  tell(stage, `DELETE FROM orders, without WHERE, a moment after ${moment ?? ''}; the shop goes on, empty`)
  await setTimeout(SHIPPED_MS, undefined, { signal: stage.context.signal })
  const to = join(scene.folder, 'db-before')
  const words = ['restore', 'orders', '--to', to, '--at', moment ?? '']
  const restored = await play(stage, ['-c', 'db.yaml', ...words])
  const back = await startBack(scene, live, to)
  const seconds = restored.seconds + back.seconds
  const missing = [...orders].filter((id) => !back.orders.has(id)).length
  const result = `${formatCount(back.orders.size)} orders are back, in ${formatDuration(seconds * 1000)}`
  showPlayed(stage, restored, missing === 0 ? result : `${result}; MISSING: ${missing}`)
  if (missing > 0) wrong.push(`${missing} orders from before the DELETE did not come back`)
  const counts = { orders: orders.size, back: orders.size - missing, missing }
  return { ...counts, seconds, deletedUpTo: Number(deletedUpTo) }
}

/** kill -9, and the data folder is gone: what is left is the repository, and what the shipper still had. */
async function loseHost(
  scene: Scene,
  live: Cluster,
  running: { shop: LiveShop; stop: AbortController; shipping: Promise<Played>; deletedUpTo: number },
): Promise<ClusterStory['lost']> {
  const { stage, wrong } = scene
  const { clock } = stage.context
  await setTimeout(BUSY_MS, undefined, { signal: stage.context.signal })
  const startedAt = clock.elapsed()
  await killCluster(live)
  rmSync(live.data, { recursive: true, force: true })
  await running.shop.close()
  const { acknowledged } = running.shop
  tell(stage, 'kill -9 of the server, and its data folder is destroyed')
  running.stop.abort()
  await running.shipping
  const to = join(scene.folder, 'db-again')
  const restored = await play(stage, ['-c', 'db.yaml', 'restore', 'orders', '--to', to])
  const again = await startBack(scene, live, to)
  const seconds = (clock.elapsed() - startedAt) / 1000
  // The DELETE counts too: what came before it is rightly gone.
  const expected = [...acknowledged].filter((id) => id > running.deletedUpTo)
  const recovered = expected.filter((id) => again.orders.has(id)).length
  const missing = expected.length - recovered
  const taken = `${formatCount(expected.length)} orders acknowledged since the DELETE`
  const text = `${taken}, ${formatCount(recovered)} back`
  showPlayed(stage, restored, `${text}, ${formatCount(missing)} lost, in ${formatDuration(seconds * 1000)}`)
  if (recovered === 0) wrong.push('no order from after the DELETE came back')
  return { acknowledged: expected.length, recovered, missing, seconds }
}

async function startBack(
  { stage, clusters }: Scene,
  { programs }: Cluster,
  data: string,
): Promise<{ orders: Set<number>; seconds: number }> {
  const { clock } = stage.context
  const started = clock.elapsed()
  const cluster = await startCluster(programs, data)
  clusters.push(cluster)
  const seconds = (clock.elapsed() - started) / 1000
  const orders = await ordersOf(cluster)
  return { orders, seconds }
}

function numberIn({ summary }: Played, key: string): number {
  return Number(summary[key])
}

function timeOf(played: Played): string {
  return formatDuration(numberIn(played, 'seconds') * 1000)
}

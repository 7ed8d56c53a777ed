/**
 * The demo's shop, a folder as web shops have it: product images, exports, logs and an order database; and
 * what a day does to it. The same bytes in each run.
 */
import { appendFile, link, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { formatTime } from '../../base/clock.ts'
import { createOrders, passOrders } from './order-database.ts'
import { newSeeded, type Seeded, seededBelow, seededBytes, seededChoice } from './seeded.ts'

export interface Shop {
  readonly folder: string
  readonly seeded: Seeded
  readonly signal: AbortSignal
  readonly size: ShopSize
  /** Images of products, below the folder; the order is that of their making. */
  readonly images: string[]
  day: number
}

interface ShopSize {
  readonly images: number
  readonly products: number
  readonly logLines: number
  readonly orders: number
}

/** What happened on a day. */
export interface DayChanges {
  readonly ordersPlaced: number
  readonly ordersChanged: number
  readonly imagesAdded: number
  readonly imagesReplaced: number
  readonly imagesRenamed: number
  readonly imagesDeleted: number
}

/** Bytes of the whole shop at scale 1, about; what it and its backups take is a few times that. */
export const SHOP_BYTES = 120 * 1024 ** 2

export const ORDERS_FILE = 'orders.sqlite'
export const PRODUCTS_FILE = 'exports/products.csv'
const PRICES_FILE = 'exports/Preise für heute.csv'
const LOG_FILE = 'logs/web-1.log'
const SHELVES = ['shoes', 'Mäntel', 'hats', '茶壶', 'lamps'] as const
const SEED = 20_261_122
const IMAGE_BYTES_MIN = 12 * 1024
const JPEG_MAGIC = Buffer.from('ffd8ffe000104a464946', 'hex')
const LOG_BEGUN = Date.UTC(2026, 10, 19)

/** Builds the shop in `folder`, which must not exist. `scale` 1 is about 120 MiB. */
export async function buildShop(folder: string, scale: number, signal: AbortSignal): Promise<Shop> {
  const size: ShopSize = {
    images: Math.max(20, Math.round(280 * scale)),
    products: Math.max(100, Math.round(60_000 * scale)),
    logLines: Math.max(100, Math.round(80_000 * scale)),
    orders: Math.max(500, Math.round(100_000 * scale)),
  }
  const shop: Shop = { folder, seeded: newSeeded(SEED), signal, size, images: [], day: 1 }
  for (const name of ['exports', 'logs']) await mkdir(join(folder, name), { recursive: true })
  await createOrders(join(folder, ORDERS_FILE), size.orders, shop.seeded, signal)
  for (let i = 0; i < size.images; i++) await addImage(shop)
  const [first = '', second = ''] = shop.images
  await link(join(folder, first), join(folder, 'images/front page.jpg'))
  await symlink(second.replace('images/', ''), join(folder, 'images/season.jpg'))
  await writeExports(shop)
  await writeFile(join(folder, LOG_FILE), logLines(shop, size.logLines))
  return shop
}

/** A day passes: orders, images, an edit in the middle of an export, longer logs, something deleted. */
export async function passDay(shop: Shop): Promise<DayChanges> {
  const { folder, seeded, size, images } = shop
  shop.day++
  const changes = changesOf(shop)
  const { ordersPlaced: placed, ordersChanged: changed } = changes
  passOrders(join(folder, ORDERS_FILE), { placed, changed }, seeded)
  for (let i = 0; i < changes.imagesAdded; i++) await addImage(shop)
  for (let i = 0; i < changes.imagesReplaced; i++) {
    await writeFile(join(folder, images[pickAt(shop)] ?? ''), imageBytes(shop))
  }
  for (let i = 0; i < changes.imagesRenamed; i++) {
    const at = pickAt(shop)
    const [from = '', to] = [images[at], `images/${seededChoice(seeded, SHELVES)}/neu ${shop.day}-${i}.jpg`]
    await rename(join(folder, from), join(folder, to))
    images[at] = to
  }
  const [gone = ''] = images.splice(pickAt(shop), 1)
  await rm(join(folder, gone))
  await editProducts(shop)
  await appendFile(join(folder, LOG_FILE), logLines(shop, Math.ceil(size.logLines / 20)))
  shop.signal.throwIfAborted()
  return changes
}

/** No two days are alike. */
function changesOf({ seeded, size }: Shop): DayChanges {
  const about = (count: number): number => Math.ceil(count * (0.75 + seededBelow(seeded, 50) / 100))
  return {
    ordersPlaced: about(size.orders / 150),
    ordersChanged: about(size.orders / 300),
    imagesAdded: about(size.images / 80),
    imagesReplaced: about(size.images / 140),
    imagesRenamed: 2,
    imagesDeleted: 1,
  }
}

/** Where an image stands that may be changed; the first two have other names that point to them. */
function pickAt({ seeded, images }: Shop): number {
  return 2 + seededBelow(seeded, images.length - 2)
}

async function addImage(shop: Shop): Promise<void> {
  shop.signal.throwIfAborted()
  const number = shop.images.length + shop.day * 10_000
  const path = `images/${seededChoice(shop.seeded, SHELVES)}/${number}.jpg`
  await mkdir(dirname(join(shop.folder, path)), { recursive: true })
  await writeFile(join(shop.folder, path), imageBytes(shop))
  shop.images.push(path)
}

/** Mostly small, some large: 20 KiB to 1.5 MiB, 290 KiB on average. */
function imageBytes({ seeded }: Shop): Buffer {
  const large = 2 ** (seededBelow(seeded, 1000) / 133) * 8 * 1024
  return Buffer.concat([JPEG_MAGIC, seededBytes(seeded, IMAGE_BYTES_MIN + Math.round(large))])
}

async function writeExports(shop: Shop): Promise<void> {
  const { folder, seeded, size } = shop
  const products: string[] = ['sku;name;shelf;price;stock;description\n']
  const prices: string[] = ['sku;price\n']
  const catalogue: unknown[] = []
  for (let i = 0; i < size.products; i++) {
    const [sku, shelf] = [`SKU-${10_000 + i}`, seededChoice(seeded, SHELVES)]
    const [price, stock] = [199 + seededBelow(seeded, 20_000), seededBelow(seeded, 500)]
    products.push(`${sku};product ${i};${shelf};${price};${stock};from our shelf ${shelf}, size ${i % 50}\n`)
    prices.push(`${sku};${price}\n`)
    catalogue.push({ sku, 名称: `${shelf} ${i}`, price, stock, tags: [shelf, i % 7 === 0 ? 'sale' : 'new'] })
  }
  await writeFile(join(folder, PRODUCTS_FILE), products.join(''))
  await writeFile(join(folder, PRICES_FILE), prices.join(''))
  await writeFile(join(folder, 'exports/商品目录.json'), JSON.stringify(catalogue))
  shop.signal.throwIfAborted()
}

/** Somebody adds products in the middle: everything behind them moves. */
async function editProducts({ folder, day }: Shop): Promise<void> {
  const file = join(folder, PRODUCTS_FILE)
  const lines = (await readFile(file, 'utf8')).split('\n')
  const added = [1, 2, 3].map((i) => `SKU-NEW-${day}-${i};new product ${i};hats;999;10;only today`)
  lines.splice(Math.floor(lines.length / 2), 0, ...added)
  await writeFile(file, lines.join('\n'))
}

function logLines({ seeded, day }: Shop, count: number): string {
  const lines: string[] = []
  const begun = LOG_BEGUN + day * 86_400_000
  for (let i = 0; i < count; i++) {
    const path = `/p/SKU-${10_000 + seededBelow(seeded, 50_000)}`
    lines.push(`${formatTime(begun + i * 500)} GET ${path} 200 ${seededBelow(seeded, 400)} ms\n`)
  }
  return lines.join('')
}

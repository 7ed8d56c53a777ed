/**
 * What one day does to the shop: 1 % of its files changed (images replaced, renamed, deleted) and as many
 * new, one big export edited in its middle, logs appended, 1 % of one relation's pages rewritten and 200
 * appended. It can be taken back, so that each round of the bench starts from the same shop.
 */
import {
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { createNoise, draw, drawLogNormal, noiseBytes, sample } from './noise.ts'
import { createPage, pageBytes } from './pages.ts'
import { csvRow, logRow } from './rows.ts'
import { shopBytesFull, shopBytesOf, writePages, writeRows, writeShop, type ShopFile } from './shop.ts'

/** What undoDay2() needs: paths to remove and files to write again. */
export interface Day2 {
  added: string[]
  changed: ShopFile[]
}

const changedShare = 0.01
const pagesRewrittenShare = 0.01
const pagesAppendedFull = 200
const logsAppendedCount = 3
const logBytesFull = 1_000_000
const insertedBytes = 1000
const overwrittenBytes = 16

/** Changes the shop at `root` as a day would; the same plan gives the same day. */
export async function applyDay2(root: string, files: ShopFile[]): Promise<Day2> {
  const scale = shopBytesOf(files) / shopBytesFull
  const images = await changeImages(root, files)
  const [bigCsv] = files.filter((file) => file.kind === 'csv')
  const logs = files.filter((file) => file.kind === 'log').slice(0, logsAppendedCount)
  const [relation] = files.filter((file) => file.kind === 'pages')
  if (bigCsv === undefined || relation === undefined) throw new Error('Cannot change a shop without tables')
  editCsv(join(root, bigCsv.path))
  for (const log of logs) appendLog(root, log, scale)
  changePages(join(root, relation.path), scale)
  return { added: images.added, changed: [...images.changed, bigCsv, ...logs, relation] }
}

/** Brings the shop back to what writeShop() wrote. */
export async function undoDay2(root: string, day: Day2): Promise<void> {
  for (const path of day.added) rmSync(join(root, path))
  await writeShop(root, day.changed)
}

async function changeImages(root: string, files: ShopFile[]): Promise<Day2> {
  const noise = createNoise('day 2 images')
  const images = files.filter((file) => file.kind === 'image')
  const count = Math.max(3, Math.round(files.length * changedShare))
  const changed = sample(noise, images, count)
  const third = Math.floor(count / 3)
  const replaced = changed.slice(0, third)
  const renamed = changed.slice(third, 2 * third)
  const deleted = changed.slice(2 * third)
  await writeShop(
    root,
    replaced.map((file) => ({ ...file, bytes: file.bytes + 100, seed: `${file.seed} day 2` })),
  )
  const renamedTo = renamed.map((file) => file.path.replace('.jpg', '-renamed.jpg'))
  renamed.forEach((file, at) => renameSync(join(root, file.path), join(root, renamedTo[at] ?? '')))
  for (const file of deleted) rmSync(join(root, file.path))
  const fresh = changed.map((file, number): ShopFile => ({
    path: `${dirname(file.path)}/new_${String(number).padStart(4, '0')}.jpg`,
    bytes: Math.round(Math.min(6_000_000, Math.max(3_000, drawLogNormal(noise, 12, 0.7)))),
    kind: 'image',
    seed: `new image ${number}`,
  }))
  await writeShop(root, fresh)
  return { added: [...renamedTo, ...fresh.map((file) => file.path)], changed }
}

/** Overwrites some bytes at a quarter, and inserts 1000 in the middle, so that all after them moves. */
function editCsv(path: string): void {
  const noise = createNoise('day 2 export')
  const before = readFileSync(path)
  let inserted = ''
  while (inserted.length < insertedBytes) inserted += csvRow(noise, draw(noise, 1, 1_000_000))
  const quarter = Math.floor(before.length / 4)
  const half = Math.floor(before.length / 2)
  noiseBytes(noise, overwrittenBytes).copy(before, quarter)
  const rows = Buffer.from(inserted.slice(0, insertedBytes), 'latin1')
  writeFileSync(path, Buffer.concat([before.subarray(0, half), rows, before.subarray(half)]))
}

function appendLog(root: string, log: ShopFile, scale: number): void {
  const descriptor = openSync(join(root, log.path), 'a')
  writeRows(descriptor, createNoise(`${log.seed} day 2`), { row: logRow, bytes: logBytesFull * scale })
  closeSync(descriptor)
}

function changePages(path: string, scale: number): void {
  const noise = createNoise('day 2 pages')
  const count = statSync(path).size / pageBytes
  const descriptor = openSync(path, 'r+')
  const numbers = Array.from({ length: count }, (_, number) => number)
  for (const number of sample(noise, numbers, Math.max(1, Math.floor(count * pagesRewrittenShare)))) {
    writeSync(descriptor, createPage(noise, number), 0, pageBytes, number * pageBytes)
  }
  closeSync(descriptor)
  const end = openSync(path, 'a')
  writePages(end, noise, { first: count, count: Math.max(1, Math.round(pagesAppendedFull * scale)) })
  closeSync(end)
}

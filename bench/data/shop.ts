/**
 * The shop of the bench: 70 % product images, 20 % exports and logs, 10 % database files, in files of mixed
 * sizes. A plan says every file; each file is written from its own seed, so any one of them can be written
 * again alone.
 */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setImmediate as yieldToSignals } from 'node:timers/promises'
import { createNoise, draw, drawLogNormal, drawUnit, noiseBytes, type Noise } from './noise.ts'
import { createPage, pageBytes } from './pages.ts'
import { csvRow, jsonRow, logRow, type RowWriter } from './rows.ts'

export type ShopFileKind = 'image' | 'csv' | 'json' | 'log' | 'pages'

/** A file of the shop. `bytes` is exact for images and pages; text ends with the row that reaches it. */
export interface ShopFile {
  path: string
  bytes: number
  kind: ShopFileKind
  seed: string
}

/** Bytes of a shop of scale 1. */
export const shopBytesFull = 1_600_000_000

const imageShare = 0.7
const textShare = 0.2
const relationShares = [0.04, 0.027, 0.017, 0.01, 0.006]
const textFiles: { kind: ShopFileKind; folder: string; name: string; end: string; share: number }[] = [
  { kind: 'csv', folder: 'var/export', name: 'orders', end: 'csv', share: 0.025 },
  { kind: 'json', folder: 'var/export', name: 'orders', end: 'jsonl', share: 0.0075 },
  { kind: 'log', folder: 'var/log', name: 'access', end: 'log', share: 0.0125 },
]
const rowWriters: Partial<Record<ShopFileKind, RowWriter>> = { csv: csvRow, json: jsonRow, log: logRow }
const imageBytesMin = 3_000
const imageBytesMax = 6_000_000
const writeBytes = 1 << 20
const yieldBytes = 16 << 20

/** Start of image, a JFIF header, one quantisation table of ones, a 1024 x 768 frame, start of scan. */
const imageHead = Buffer.concat([
  Buffer.from('ffd8ffe000104a46494600010101004800480000ffdb004300', 'hex'),
  Buffer.alloc(64, 1),
  Buffer.from('ffc00011080300040003012200021101031101ffda000c03010002110311003f00', 'hex'),
])
const imageTail = Buffer.from('ffd9', 'hex')

/** Every file of a shop of about `bytes`; pure. */
export function planShop(bytes: number): ShopFile[] {
  const noise = createNoise('shop sizes')
  return [...planImages(noise, bytes * imageShare), ...planText(bytes), ...planRelations(bytes)]
}

/** Bytes of all files of a plan. */
export function shopBytesOf(files: ShopFile[]): number {
  return files.reduce((sum, file) => sum + file.bytes, 0)
}

/** Six of ten images are thumbnails of about 25 KB, the others photographs of about 300 KB. */
function planImages(noise: Noise, bytes: number): ShopFile[] {
  const files: ShopFile[] = []
  for (let number = 0, written = 0; written < bytes; number++) {
    const drawn = drawUnit(noise) < 0.6 ? drawLogNormal(noise, 10, 0.5) : drawLogNormal(noise, 12.6, 0.7)
    const size = Math.round(Math.min(imageBytesMax, Math.max(imageBytesMin, drawn)))
    const folder = `media/catalog/${hex((number * 37) & 0x3f)}/${hex((number * 101) & 0x1f)}`
    const name = `img_${String(number).padStart(6, '0')}`
    files.push({ path: `${folder}/${name}.jpg`, bytes: size, kind: 'image', seed: `image ${number}` })
    written += size
  }
  return files
}

function planText(bytes: number): ShopFile[] {
  const files: ShopFile[] = []
  let rest = Math.round(bytes * textShare)
  for (let number = 0; rest > 0; number++) {
    const text = textFiles[number % textFiles.length]
    if (text === undefined) break
    const size = Math.min(rest, Math.ceil(bytes * text.share))
    const path = `${text.folder}/${text.name}_${String(number).padStart(3, '0')}.${text.end}`
    files.push({ path, bytes: size, kind: text.kind, seed: `text ${number}` })
    rest -= size
  }
  return files
}

function planRelations(bytes: number): ShopFile[] {
  return relationShares.map((share, number) => ({
    path: `db/base/16384/${16_400 + number}`,
    bytes: Math.max(1, Math.round((bytes * share) / pageBytes)) * pageBytes,
    kind: 'pages',
    seed: `relation ${number}`,
  }))
}

/**
 * Writes files below `root`, folders included; a file that is there is written anew. Gives signals a chance.
 */
export async function writeShop(root: string, files: ShopFile[]): Promise<void> {
  const folders = new Set(files.map((file) => dirname(join(root, file.path))))
  for (const folder of folders) mkdirSync(folder, { recursive: true })
  let sinceYield = 0
  for (const file of files) {
    writeShopFile(root, file)
    sinceYield += file.bytes
    if (sinceYield < yieldBytes) continue
    sinceYield = 0
    await yieldToSignals()
  }
}

function writeShopFile(root: string, file: ShopFile): void {
  const descriptor = openSync(join(root, file.path), 'w')
  const noise = createNoise(file.seed)
  try {
    if (file.kind === 'image') writeImage(descriptor, noise, file.bytes)
    else if (file.kind === 'pages') writePages(descriptor, noise, { first: 0, count: file.bytes / pageBytes })
    else writeRows(descriptor, noise, { row: rowOf(file.kind), bytes: file.bytes })
  } finally {
    closeSync(descriptor)
  }
}

/**
 * An entropy-coded body: noise in which, as in every JPEG file, a byte 0xff is followed by a stuffed zero.
 */
function writeImage(descriptor: number, noise: Noise, bytes: number): void {
  writeSync(descriptor, imageHead)
  for (let rest = bytes - imageHead.length - imageTail.length; rest > 0;) {
    const body = noiseBytes(noise, Math.min(rest, writeBytes))
    for (let at = body.indexOf(0xff); at >= 0; at = body.indexOf(0xff, at + 2)) {
      if (at + 1 < body.length) body[at + 1] = 0
      else body[at] = 0xfe
    }
    writeSync(descriptor, body)
    rest -= body.length
  }
  writeSync(descriptor, imageTail)
}

/** Writes `count` pages in sequence at the descriptor's position; `first` is the number of the first. */
export function writePages(descriptor: number, noise: Noise, pages: { first: number; count: number }): void {
  const batchCount = writeBytes / pageBytes
  for (let done = 0; done < pages.count; done += batchCount) {
    const batch: Buffer[] = []
    for (let at = done; at < Math.min(done + batchCount, pages.count); at++) {
      batch.push(createPage(noise, pages.first + at))
    }
    writeSync(descriptor, Buffer.concat(batch))
  }
}

/** Writes rows until `bytes` are reached. */
export function writeRows(descriptor: number, noise: Noise, text: { row: RowWriter; bytes: number }): void {
  let number = draw(noise, 1, 1_000_000)
  for (let written = 0; written < text.bytes;) {
    const rows: string[] = []
    const goal = Math.min(writeBytes, text.bytes - written)
    for (let length = 0; length < goal;) {
      const row = text.row(noise, number++)
      rows.push(row)
      length += row.length
    }
    written += writeSync(descriptor, Buffer.from(rows.join(''), 'latin1'))
  }
}

/** How rows of a text file are made. */
function rowOf(kind: ShopFileKind): RowWriter {
  const row = rowWriters[kind]
  if (row === undefined) throw new TypeError(`Cannot write rows of a file of kind "${kind}"`)
  return row
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0')
}

/**
 * The bench: measures Backstock against restic, borg and pgBackRest on this machine, judges the results by
 * what was promised, and writes them down. Run: npm run bench -- --help
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { planShop, shopBytesFull, shopBytesOf, type ShopFile } from './data/shop.ts'
import { describeMachine } from './machine.ts'
import { growthNeeds, growthSizes, measureGrowth, type GrowthSizes } from './measures/growth.ts'
import { measureIndexMemory } from './measures/index-memory.ts'
import { emptyPostgresRecord, measurePostgres } from './measures/postgres.ts'
import { measureRounds, needsRounds } from './measures/rounds.ts'
import { parseOptions, usageText, type Options } from './options.ts'
import { openBackstock } from './peers/backstock.ts'
import { openBorg } from './peers/borg.ts'
import type { Peer } from './peers/peer.ts'
import { openRestic } from './peers/restic.ts'
import type { PostgresRecord } from './postgres-record.ts'
import type { BenchRecord } from './record.ts'
import { drawGrowth } from './report/growth-chart.ts'
import { judge, judgeGrowth } from './report/judgement.ts'
import { formatPage, formatText } from './report/page.ts'
import { judgePostgres } from './report/postgres-judgement.ts'
import { formatPostgresText } from './report/postgres-page.ts'
import { drawRatios } from './report/ratio-chart.ts'
import { openScratch, type Scratch } from './scratch.ts'

/** Of the shop's bytes: itself, three repositories and three of the database, one restored tree, caches. */
const scratchShare = 5.5
const scratchBytesBase = 500_000_000
const scratchFilesBase = 20_000

try {
  const options = parseOptions(process.argv.slice(2))
  if (options === undefined) process.stdout.write(usageText)
  else process.exitCode = await bench(options)
} catch (error) {
  // The one place where a failed bench ends: nothing was written, and the scratch folder goes with us.
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}

/** Measures what was asked for and gives the exit code. */
async function bench(options: Options): Promise<number> {
  const note = (text: string) => process.stderr.write(`${text}\n`)
  const postgres = options.only.has('postgres') ? await benchPostgres(options, note) : undefined
  const isAlone = options.only.size === 1 && postgres !== undefined
  const shop = isAlone ? undefined : await benchShop(options, note)
  note(`written to ${writeResults({ shop, postgres }, options.isRecorded)}`)
  const shopRows = shop === undefined ? [] : [...judge(shop), ...judgeGrowth(shop)]
  const clusterRows = postgres === undefined ? [] : judgePostgres(postgres)
  const isMissed = [...shopRows, ...clusterRows].some((row) => row.verdict === 'missed')
  if (isMissed && options.scale < 1)
    note('below scale 1 start-up times decide: the verdicts are no judgement')
  return isMissed && options.scale >= 1 ? 2 : 0
}

async function benchPostgres(options: Options, note: (text: string) => void): Promise<PostgresRecord> {
  const record = emptyPostgresRecord(options)
  await measurePostgres({ record, backstockPath: options.backstockPath, note })
  process.stdout.write(formatPostgresText(record))
  return record
}

/** Everything but PostgreSQL. */
async function benchShop(options: Options, note: (text: string) => void): Promise<BenchRecord> {
  const peers = openPeers(options)
  const files = planShop(shopBytesFull * options.scale)
  const sizes = growthSizes(options.scale, options.isQuick)
  const scratch = openScratch(scratchNeeds(options, files, sizes))
  const record = emptyRecord(options, peers, files)
  const { only, rounds: count } = options

  if (needsRounds(only))
    await measureRounds({ scratch, peers, only, count, files, samples: record.samples, note })
  if (only.has('index')) await measureIndex(record, scratch, options)
  if (only.has('growth')) {
    const compared = peers.filter((peer) => peer.name !== 'borg')
    const rounds = options.growthRounds
    await measureGrowth({ scratch, peers: compared, sizes, rounds, samples: record.growth, note })
  }

  process.stdout.write(formatText(record))
  return record
}

function openPeers(options: Options): Peer[] {
  if (!needsRounds(options.only) && !options.only.has('growth')) return []
  return [openBackstock(options.backstockPath), openRestic(), openBorg()]
}

function scratchNeeds(
  options: Options,
  files: ShopFile[],
  sizes: GrowthSizes,
): { bytes: number; files: number } {
  const shopBytes = shopBytesFull * options.scale
  const rounds = needsRounds(options.only)
    ? { bytes: scratchShare * shopBytes, files: 3 * files.length }
    : { bytes: 0, files: 0 }
  const growth = options.only.has('growth') ? growthNeeds(sizes) : { bytes: 0, files: 0 }
  return {
    bytes: scratchBytesBase + Math.max(rounds.bytes, growth.bytes),
    files: scratchFilesBase + Math.max(rounds.files, growth.files),
  }
}

function emptyRecord(options: Options, peers: Peer[], files: ShopFile[]): BenchRecord {
  const peerVersions = Object.fromEntries(peers.map((peer) => [peer.name, peer.version]))
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' ') + ' UTC',
    command: ['npm run bench --', ...process.argv.slice(2)].join(' '),
    machine: describeMachine(),
    versions: { ...peerVersions, node: process.versions.node },
    rounds: options.rounds,
    scale: options.scale,
    shop: { files: files.length, bytes: shopBytesOf(files) },
    samples: [],
    growth: [],
    indexMemory: null,
    indexMemoryMissing: '',
  }
}

/** An index that cannot be measured leaves its row empty, with the reason; the other measures stand. */
async function measureIndex(record: BenchRecord, scratch: Scratch, options: Options): Promise<void> {
  try {
    record.indexMemory = await measureIndexMemory(scratch, options.scale)
  } catch (error) {
    record.indexMemoryMissing = `not measured, ${error instanceof Error ? error.message : String(error)}`
  }
}

interface Results {
  shop: BenchRecord | undefined
  postgres: PostgresRecord | undefined
}

/**
 * Only a recorded run replaces what the repository keeps, and of that only what it measured. Gives the folder
 * of the plots.
 */
function writeResults(found: Results, isRecorded: boolean): string {
  const folder = join(import.meta.dirname, isRecorded ? 'results' : 'results/draft')
  mkdirSync(folder, { recursive: true })
  const { shop, postgres } = found
  const write = (name: string, record: object) =>
    writeFileSync(join(folder, name), `${JSON.stringify(record, null, 2)}\n`)
  if (shop !== undefined) {
    write('latest.json', shop)
    writeFileSync(join(folder, 'ratios.svg'), drawRatios(shop))
    if (shop.growth.length > 0) writeFileSync(join(folder, 'growth.svg'), drawGrowth(shop))
  }
  if (postgres !== undefined && postgres.missing === '') write('postgres.json', postgres)
  if (isRecorded) writePage(folder)
  return folder
}

/** The page of all that is recorded, by this run or an earlier one. */
function writePage(folder: string): void {
  const shop = readRecord<BenchRecord>(join(folder, 'latest.json'))
  const postgres = readRecord<PostgresRecord>(join(folder, 'postgres.json'))
  if (shop === undefined) throw new Error('Cannot write bench/RESULTS.md: measure the shop first')
  writeFileSync(join(import.meta.dirname, 'RESULTS.md'), formatPage(shop, postgres))
}

/** The bench's own file, written by writeResults(). */
function readRecord<T extends { samples: object[] }>(path: string): T | undefined {
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as T) : undefined
}

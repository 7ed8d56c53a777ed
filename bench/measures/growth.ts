/**
 * Growth: first and unchanged second backup of ever more shop data, and of ever more small files.
 * Time must grow no faster than the data and memory must stay flat; restic runs beside for comparison.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { writeSmallFiles } from '../data/small-files.ts'
import { planShop, writeShop } from '../data/shop.ts'
import { measure } from '../measure.ts'
import type { Peer } from '../peers/peer.ts'
import type { GrowthSample, GrowthSeries } from '../record.ts'
import { removeFolder, type Scratch } from '../scratch.ts'
import { settleMs } from './rounds.ts'

export interface Growth {
  scratch: Scratch
  peers: Peer[]
  sizes: GrowthSizes
  rounds: number
  samples: GrowthSample[]
  note: (text: string) => void
}

export type GrowthSizes = Record<GrowthSeries, number[]>

const shopBytesFull = [200_000_000, 800_000_000, 3_200_000_000]
const fileCountsFull = [10_000, 100_000, 1_000_000]
const fileCountsQuick = [10_000, 100_000]
/** A small file costs tmpfs a page, the kernel an inode and a name, and the repository most of its bytes. */
const smallFileBytesMax = 7_000

/** The sizes to measure: smaller ones for a scale below 1, and no million files when it must be quick. */
export function growthSizes(scale: number, isQuick: boolean): GrowthSizes {
  const files = isQuick ? fileCountsQuick : fileCountsFull.map((count) => Math.round(count * scale))
  return { bytes: shopBytesFull.map((bytes) => Math.round(bytes * scale)), files }
}

/** What the largest size needs on tmpfs. */
export function growthNeeds(sizes: GrowthSizes): { bytes: number; files: number } {
  const filesMax = Math.max(...sizes.files)
  return {
    bytes: Math.max(2 * Math.max(...sizes.bytes), smallFileBytesMax * filesMax),
    files: Math.round(filesMax * 1.1) + 20_000,
  }
}

/** Goes through both series, from small to large. */
export async function measureGrowth(growth: Growth): Promise<void> {
  const source = join(growth.scratch.root, 'grown')
  for (const series of ['bytes', 'files'] as const) {
    for (const size of growth.sizes[series]) {
      growth.note(`growth: writing ${size} ${series}`)
      if (series === 'bytes') await writeShop(source, planShop(size))
      else await writeSmallFiles(source, size)
      for (let round = 1; round <= growth.rounds; round++) {
        await sleep(settleMs)
        for (const peer of growth.peers) await measureSize(growth, { series, size, round, peer, source })
      }
      removeFolder(source)
    }
  }
}

interface SizeRun {
  series: GrowthSeries
  size: number
  round: number
  peer: Peer
  source: string
}

async function measureSize(growth: Growth, run: SizeRun): Promise<void> {
  const folder = join(growth.scratch.root, 'growth')
  const repository = run.peer.prepare({ source: run.source, folder })
  await measure(growth.scratch, repository.init)
  for (const [step, kind] of [
    ['first', 'full'],
    ['second', 'incremental'],
  ] as const) {
    const { usage, stdout } = await measure(growth.scratch, repository.backup(kind))
    repository.confirm(stdout)
    const { series, size, round } = run
    growth.samples.push({ series, size, step, peer: run.peer.name, round, ...usage })
    const seconds = `${usage.wallSeconds.toFixed(2)} s, processor ${usage.cpuSeconds.toFixed(2)} s`
    const memory = `${(usage.rssBytes / 1e6).toFixed(0)} MB`
    growth.note(`growth ${size} ${series}, ${step} ${run.peer.name}: ${seconds}, ${memory}`)
  }
  removeFolder(folder)
}

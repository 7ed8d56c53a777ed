/**
 * The index memory measure: runs bench/index-memory.ts as a process of its own, where nothing else holds
 * memory.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { measure } from '../measure.ts'
import { removeFolder, type Scratch } from '../scratch.ts'

/** What the child process prints. */
export interface IndexMemory {
  chunks: number
  /** What the filled index holds, garbage collected. */
  residentBytes: number
  /** The most that it held while it was filled. */
  peakBytes: number
  lookupsPerSecond: number
}

const chunkCountFull = 4_000_000
const checkout = resolve(import.meta.dirname, '../..')

/** Fails, saying why, if the index cannot be measured. */
export async function measureIndexMemory(scratch: Scratch, scale: number): Promise<IndexMemory> {
  if (!existsSync(join(checkout, 'src/repo/chunk-index.ts')))
    throw new Error('src/repo/chunk-index.ts does not exist')
  const folder = join(scratch.root, 'index')
  mkdirSync(folder)
  const chunks = Math.round(chunkCountFull * Math.min(1, scale))
  const program = join(checkout, 'bench/index-memory.ts')
  const argv = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    '--expose-gc',
    program,
    folder,
    `${chunks}`,
  ]
  const { stdout } = await measure(scratch, { argv, env: { TMPDIR: folder }, folder: scratch.root })
  removeFolder(folder)
  const report: unknown = JSON.parse(stdout)
  if (!isIndexMemory(report)) throw new Error(`bench/index-memory.ts printed something else: ${stdout}`)
  return report
}

function isIndexMemory(value: unknown): value is IndexMemory {
  if (typeof value !== 'object' || value === null) return false
  const names = ['chunks', 'residentBytes', 'peakBytes', 'lookupsPerSecond']
  return names.every((name) => typeof Reflect.get(value, name) === 'number')
}

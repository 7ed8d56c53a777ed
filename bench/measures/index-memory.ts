/**
 * The index memory measure: runs bench/index-memory.ts as a process of its own, where nothing else holds
 * memory.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { measure } from '../measure.ts'
import { removeFolder, type Scratch } from '../scratch.ts'

/** What the child process prints. */
export interface IndexMemory {
  chunks: number
  /** What the filled index holds, garbage collected. */
  residentBytes: number
  /** The most that the process held at any moment. */
  peakBytes: number
  lookupsPerSecond: number
}

const chunkCountFull = 4_000_000
/** A smaller index is one of fewer runs. */
const runCountFull = 40

/** Fails, saying why, if the index cannot be measured. */
export async function measureIndexMemory(scratch: Scratch, scale: number): Promise<IndexMemory> {
  const folder = join(scratch.root, 'index')
  mkdirSync(folder)
  const chunks = Math.ceil(Math.min(1, scale) * runCountFull) * (chunkCountFull / runCountFull)
  const program = join(import.meta.dirname, '../index-memory.ts')
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--expose-gc']
  const run = (step: 'fill' | 'hold') => {
    const argv = [...node, program, step, folder, String(chunks)]
    return measure(scratch, { argv, env: { TMPDIR: folder }, folder: scratch.root })
  }
  await run('fill')
  const { stdout } = await run('hold')
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

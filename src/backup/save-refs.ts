/**
 * Saves the refs record of the running backup: whole, or as a delta against its parent's when that is much
 * smaller.
 */
import { decodeRefs, encodeRefs, xorRefs, type RefsMap } from '../format/refs.ts'
import { saveChunk } from '../repo/saver.ts'
import type { BackupRun } from './backup.ts'
import type { Engine } from './engine.ts'
import { refsOfMarks } from './marks.ts'
import { packIds } from './engine.ts'
import type { SavedTree } from './save-tree.ts'

/** A record larger than this is stored in parts. */
const REFS_PART_BYTES = 4 * 1024 * 1024
/** Deltas that one reading follows at most. */
const REFS_DEPTH_MAX = 16

export interface SavedRefs {
  /** Chunk ids of the parts, hex. */
  readonly ids: readonly string[]
  /** The record without a base, for the next delta. */
  readonly whole: Uint8Array
  readonly depth: number
}

/** All packs are stored. The record is durable after the next flush. Fails: as the store's put. */
export async function saveRefs(run: BackupRun, engine: Engine, tree: SavedTree): Promise<SavedRefs> {
  const ids = packIds(engine)
  const refs = refsOfMarks(tree.marks, (pack) => ids[pack] ?? '')
  const whole = encodeRefs({ base: undefined, packs: refs })
  const delta = deltaOf(run, tree, refs)
  const useDelta = delta !== undefined && delta.length < whole.length / 2
  const record = useDelta ? delta : whole
  const parts: string[] = []
  for (let at = 0; at < record.length; at += REFS_PART_BYTES) {
    const saved = await saveChunk(engine.saver, 'refs', record.subarray(at, at + REFS_PART_BYTES))
    parts.push(saved.id.toString('hex'))
  }
  return { ids: parts, whole, depth: useDelta ? (tree.parentRefs?.depth ?? 0) + 1 : 0 }
}

function deltaOf(run: BackupRun, tree: SavedTree, refs: RefsMap): Buffer | undefined {
  const { parent } = run.plan
  const before = tree.parentRefs
  if (parent === undefined || before === undefined || parent.refs.length !== 1) return undefined
  if (before.depth >= REFS_DEPTH_MAX) return undefined
  const base = Buffer.from(parent.refs[0]!, 'hex')
  return encodeRefs({ base, packs: xorRefs(decodeRefs(before.whole, "the parent's refs").packs, refs) })
}

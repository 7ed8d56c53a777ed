/**
 * From the wanted kind to what the backup may build on: pure rules of full, differential and incremental
 * (docs/format.md section 8). Readable as the table of the design: what it reads, references and needs.
 */
import { SNAPSHOT_LIMITS, type LineageSet, type SnapshotKind } from '../format/snapshot.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'

export type WantedKind = SnapshotKind | 'auto'

export interface BackupPlan {
  readonly kind: SnapshotKind
  /**
   * The snapshot whose tree is compared with: none for a full, the full for a differential, the latest for an
   * incremental.
   */
  readonly parent: StoredSnapshot | undefined
  /** The full of this generation; undefined when this backup is it. */
  readonly full: StoredSnapshot | undefined
  /** Pack sets that may be referenced besides the own one. */
  readonly lineage: readonly LineageSet[]
  /** The latest snapshot of the stream, for counter and predecessor hash. */
  readonly head: StoredSnapshot | undefined
  /** Why the kind is not the one that was asked for; undefined if it is. */
  readonly because: string | undefined
}

/** `auto` starts a new generation after this many snapshots: a longer lineage costs more to lose and to read. */
const GENERATION_SNAPSHOTS_MAX = 100
/** `auto` starts a new generation when the increments together outweigh the full. */
const GENERATION_GROWTH_MAX = 1

/** `history`: the verified snapshots of one source in one domain, in any order. */
export function planBackup(wanted: WantedKind, history: readonly StoredSnapshot[]): BackupPlan {
  const ordered = history.toSorted((a, b) => a.counter - b.counter)
  const head = ordered.at(-1)
  const none = { parent: undefined, full: undefined, lineage: [], head }
  if (wanted === 'full') return { kind: 'full', ...none, because: undefined }
  const full =
    head === undefined
      ? undefined
      : ordered.find((snapshot) => snapshot.id === head.full && snapshot.kind === 'full')
  if (head === undefined || full === undefined) {
    const because =
      head === undefined
        ? 'there is no snapshot of this source yet'
        : 'the full of the latest snapshot is gone'
    return { kind: 'full', ...none, because: wanted === 'auto' ? undefined : because }
  }
  if (wanted === 'auto' && isGenerationOld(ordered, full))
    return { kind: 'full', ...none, because: undefined }
  if (wanted !== 'differential' && head.lineage.length + 1 > SNAPSHOT_LIMITS.lineage)
    return {
      kind: 'full',
      ...none,
      because: `its lineage has ${head.lineage.length} pack sets, the most there may be`,
    }
  if (wanted === 'differential')
    return { kind: 'differential', parent: full, full, lineage: full.lineage, head, because: undefined }
  return { kind: 'incremental', parent: head, full, lineage: head.lineage, head, because: undefined }
}

/** For sources whose backups do not build on each other. */
export function planFull(wanted: WantedKind, history: readonly StoredSnapshot[]): BackupPlan {
  const plan = planBackup('full', history)
  if (wanted === 'auto' || wanted === 'full') return plan
  return { ...plan, because: 'sources of its kind have only full backups in this version' }
}

function isGenerationOld(ordered: readonly StoredSnapshot[], full: StoredSnapshot): boolean {
  const later = ordered.filter(
    (snapshot) => snapshot.generation === full.generation && snapshot.id !== full.id,
  )
  if (later.length >= GENERATION_SNAPSHOTS_MAX) return true
  let grown = 0
  for (const snapshot of later) grown += ownBytes(snapshot)
  return grown > ownBytes(full) * GENERATION_GROWTH_MAX
}

function ownBytes(snapshot: StoredSnapshot): number {
  return snapshot.lineage.find((set) => set.packSet === snapshot.packSet)?.bytes ?? 0
}

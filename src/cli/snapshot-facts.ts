/** What --json says of a snapshot; everything in it is public to whoever opens the repository. */
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { LOGICAL_KIND } from '../sources/postgres/logical-paths.ts'

export interface SnapshotFacts {
  readonly id: string
  readonly source: string
  readonly sourceKind: string
  readonly kind: string
  readonly begun: string
  readonly completed: string
  readonly partial: boolean
  readonly tags: readonly string[]
  readonly files: number
  readonly directories: number
  /** Of all files. */
  readonly bytes: number
  /** Of the packs that this snapshot added. */
  readonly bytesStored: number
  readonly problems: number
  readonly counter: number
  readonly parent: string | null
  readonly full: string
  readonly packSets: number
  readonly domain: string
}

export function snapshotFacts(snapshot: StoredSnapshot): SnapshotFacts {
  const { id, source, sourceKind, kind, begun, completed, partial, tags, counter, parent, full } = snapshot
  const { totals, lineage, domain, packSet } = snapshot
  return {
    id,
    source,
    sourceKind,
    kind,
    begun,
    completed,
    partial,
    tags,
    files: totals.files,
    directories: totals.directories,
    bytes: totals['bytes'] ?? 0,
    bytesStored: lineage.find((set) => set.packSet === packSet)?.bytes ?? 0,
    problems: totals['problems'] ?? 0,
    counter,
    parent,
    full,
    packSets: lineage.length,
    domain,
  }
}

/** For people: its kind, and what they must know of it. */
export function shownKind({
  kind,
  partial,
  sourceKind,
}: Pick<StoredSnapshot, 'kind' | 'partial' | 'sourceKind'>): string {
  const notes = [...(sourceKind === LOGICAL_KIND ? ['logical'] : []), ...(partial ? ['partial'] : [])]
  return notes.length === 0 ? kind : `${kind} (${notes.join(', ')})`
}

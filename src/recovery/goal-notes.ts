/** The notes of a cluster's log in the order in which a recovery would read it, for who looks for a target. */
import { mapConcurrent } from '../base/concurrent.ts'
import { logName } from '../format/log-header.ts'
import { isDamage } from '../repo/damage.ts'
import type { Access } from '../repo/keys.ts'
import { readNotes } from '../repo/log-reader.ts'
import { segmentsOf, type LogSegment } from '../repo/log-table.ts'
import type { Lsn } from '../sources/postgres/lsn.ts'
import { NO_NOTES } from '../sources/postgres/log-notes.ts'
import { decodeNotes } from '../sources/postgres/notes-codec.ts'
import type { NotesPiece } from '../sources/postgres/target-log.ts'
import { isMerged } from './merged.ts'
import type { Timelines } from './timelines.ts'

/** Plain notes by the name of their object: several backups are looked at in turn. */
export interface NotesCache {
  readonly access: Access
  readonly kept: Map<string, Uint8Array>
  bytes: number
}

const CACHE_BYTES_MAX = 64 * 1024 * 1024
/** Objects asked for at once, and held until they are looked at. */
const AHEAD = 16

export function newNotesCache(access: Access): NotesCache {
  return { access, kept: new Map(), bytes: 0 }
}

/**
 * Of the timelines of `chain`: whole segments, and of the tails those that no segment covers. Of the first
 * timeline only what lies behind `from`. An object that is damaged counts as log that was not understood.
 * Fails: storage.*, key.role.
 */
export async function* goalNotes(
  cache: NotesCache,
  timelines: Timelines,
  { chain, from }: { readonly chain: readonly number[]; readonly from: Lsn },
): AsyncGenerator<NotesPiece, void> {
  let batch: { timeline: number; segment: LogSegment }[] = []
  for (const [nth, timeline] of chain.entries())
    for (const segment of uncovered(timelines, timeline)) {
      if (nth === 0 && segment.to <= from && segment.from < segment.to) continue
      batch.push({ timeline, segment })
      if (batch.length < AHEAD) continue
      yield* await readBatch(cache, batch)
      batch = []
    }
  yield* await readBatch(cache, batch)
}

function* uncovered({ tables }: Timelines, timeline: number): Generator<LogSegment, void> {
  const table = tables.get(timeline)
  if (table === undefined) return
  let coveredTo = -1n
  for (const segment of segmentsOf(table)) {
    if (segment.to <= coveredTo && segment.from < segment.to) continue
    if (segment.to > coveredTo) coveredTo = segment.to
    yield segment
  }
}

async function readBatch(
  cache: NotesCache,
  batch: readonly { readonly timeline: number; readonly segment: LogSegment }[],
): Promise<NotesPiece[]> {
  const pieces: NotesPiece[] = []
  await mapConcurrent(batch.entries(), AHEAD, async ([nth, { timeline, segment }]) => {
    const { from, to } = segment
    pieces[nth] = { timeline, from, to, notes: await notesOf(cache, segment) }
  })
  return pieces
}

async function notesOf(cache: NotesCache, segment: LogSegment): Promise<NotesPiece['notes']> {
  const name = logName(segment.place)
  try {
    const bytes = cache.kept.get(name) ?? (await readNotes(cache.access, segment))
    const notes = bytes.length === 0 ? NO_NOTES : decodeNotes(bytes)
    if (!cache.kept.has(name) && cache.bytes + bytes.length <= CACHE_BYTES_MAX) {
      cache.kept.set(name, bytes)
      cache.bytes += bytes.length
    }
    return notes
  } catch (error) {
    if (!isDamage(error) || isMerged(error)) throw error
    return { ...NO_NOTES, isUnread: true }
  }
}

/**
 * Saves a segment of a database file by pages: all of it in runs of 128 KiB, or, when the parent's page
 * hashes are at hand, only what differs (page-patch.ts). Runs that lie in holes of the file become holes of
 * the map.
 */
import { PAGE_HASH_BYTES } from '../format/content.ts'
import { addChunk, addHole, type Draft, type Lane } from './draft.ts'
import { parentPages, savePatch } from './page-patch.ts'
import { hashRun, readRun, runFile, type PageFile, type RunFile } from './page-runs.ts'

/** Fills the draft with the segment's chunks, extents and page hashes. Fails: as the store's put. */
export async function savePages(lane: Lane, draft: Draft, given: PageFile): Promise<void> {
  const file = runFile(lane, given)
  const parent = parentPages(file)
  const pages = Math.ceil((file.end - file.offset) / file.pageBytes)
  const hashes = Buffer.alloc(pages * PAGE_HASH_BYTES)
  if (parent === undefined) await saveRuns(lane, draft, file, hashes)
  else await savePatch(lane, draft, { file, hashes, parent })
  draft.hashes = Uint8Array.from(
    hashes.subarray(0, Math.ceil(draft.bytes / file.pageBytes) * PAGE_HASH_BYTES),
  )
}

/** The whole segment in aligned runs. */
async function saveRuns(lane: Lane, draft: Draft, file: RunFile, hashes: Buffer): Promise<void> {
  for (let at = file.offset; at < file.end;) {
    const run = readRun(lane, draft, file, at)
    if (run.length === 0) return
    hashRun(lane, file, run, hashes, at)
    if (run.bytes === undefined) addHole(draft, run.length)
    else await addChunk(lane, draft, 'run', run.bytes)
    at += run.length
    if (run.length < file.runBytes) return
  }
}

/** The entry of a file out of what its segments gave. */
import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import { fileEntry } from '../../test/harness/tampering.ts'
import type { FileEntry } from '../base/file-entry.ts'
import { newWriter } from '../base/bytes.ts'
import { decodeContent, encodeExtents, NODE_SPAN_BYTES } from '../format/content.ts'
import { ENTRY_FLAGS } from '../format/tree.ts'
import type { Saver } from '../repo/saver.ts'
import { finishFile } from './file-item.ts'
import type { SegmentResult } from './segment.ts'

const MIB = 1024 * 1024
const walked: FileEntry = fileEntry('video', NODE_SPAN_BYTES + MIB, Buffer.alloc(0))
/** Not asked: an entry of one segment holds its extents itself. */
const saver = {} as Saver

/** A segment of nothing but a hole. */
function segment(index: number, bytes: number, more: Partial<SegmentResult> = {}): SegmentResult {
  const extents = newWriter()
  encodeExtents(extents, { chunks: [], extents: [{ length: bytes, ref: 0, offset: 0 }] })
  return {
    index,
    problem: undefined,
    entry: walked,
    trusted: true,
    changed: false,
    bytes,
    inline: undefined,
    extents: extents.bytes.slice(0, extents.length),
    pageBytes: 0,
    hashes: undefined,
    marks: [index, 7],
    bytesRead: 0,
    bytesFresh: 0,
    ...more,
  }
}

test('`finishFile()` ends a file where its first segment fell short, whatever later ones gave', async () => {
  const results = [segment(0, 5 * MIB, { changed: true }), segment(1, MIB)]
  const { entry, marks } = await finishFile(saver, walked, 0, results)
  assert.equal(entry.size, 5 * MIB)
  assert.equal(entry.flags, ENTRY_FLAGS.changed)
  assert.deepEqual(marks, [0, 7], 'nothing of the later segment is referenced')
  const content = decodeContent(entry.content, 'video')
  assert(content.kind === 'cdc' && content.map.depth === 0)
  assert.deepEqual(
    content.map.extents.extents.map(({ length }) => length),
    [5 * MIB],
  )
})

test('`finishFile()` says racy of stamps that prove nothing', async () => {
  const flagsOf = async (more: Partial<SegmentResult>): Promise<number> =>
    (await finishFile(saver, walked, 0, [segment(0, MIB, more)])).entry.flags
  assert.equal(await flagsOf({}), 0)
  assert.equal(await flagsOf({ trusted: false }), ENTRY_FLAGS.racy)
  assert.equal(await flagsOf({ entry: { ...walked, ctime: walked.ctime + 1n } }), ENTRY_FLAGS.racy)
})

/** Files that come from elsewhere, through a whole backup and back. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { FileEntry } from '../base/file-entry.ts'
import { DEFAULT_CHUNKING } from '../format/config.ts'
import type { Receiver, Source } from '../sources/source.ts'
import {
  backUp,
  dropRepository,
  folderSource,
  makeRepository,
  noise,
  readBack,
  sha256Hex,
  snapshotOf,
} from '../../test/harness/engine.ts'

const MIB = 1024 * 1024
const PAGE = 8192

interface Given {
  readonly name: string
  readonly bytes: Uint8Array
  /** What its entry says; a file that is still being made may say 0. */
  readonly size?: number
  readonly isPages?: boolean
}

function entryOf(name: string, type: FileEntry['type'], size: number): FileEntry {
  const nothing = { dev: 0, inode: 0n, links: 1, uid: 1, gid: 1, target: '', major: 0, minor: 0, xattrs: [] }
  return { ...nothing, name, type, mode: 0o640, mtime: 5n, ctime: 5n, size }
}

/** Sends the bytes of each in parts of uneven length. Its damaged pages are what finish() said. */
function deliveredSource(files: readonly Given[], damaged: string[]): Source {
  const deliver = async (receiver: Receiver): Promise<void> => {
    receiver.takeEntry('/', entryOf('', 'directory', 0))
    for (const { name, bytes, size = bytes.length, isPages = false } of files) {
      const format = isPages ? { pageBytes: PAGE, checksums: { firstBlock: 0 } } : undefined
      receiver.beginFile(`/${name}`, entryOf(name, 'file', size), format)
      for (let at = 0; at < bytes.length;) {
        const length = 100_003 + (at % 70_001)
        if (receiver.takeBytes(bytes.subarray(at, at + length))) await receiver.room()
        at += length
      }
      receiver.endFile()
    }
    for (const { path, pages, more } of await receiver.finish())
      damaged.push(`${path} ${pages.length} ${more} ${pages.slice(0, 3).join(' ')}`)
  }
  return { ...folderSource('/', { entries: () => ({ deliver }) }), increments: false }
}

test('files of known and unknown length come back, whatever the load has room for', async () => {
  const files: readonly Given[] = [
    { name: 'a', bytes: noise(1, 100) },
    { name: 'b', bytes: noise(2, MIB + 1), size: 0 },
    { name: 'c', bytes: noise(3, 3 * MIB) },
    { name: 'd', bytes: noise(4, 5000), size: 0 },
    { name: 'e', bytes: new Uint8Array(0) },
    // Behind a small one, and more than a segment: its segments are whole all the same.
    { name: 'f', bytes: Buffer.alloc(66 * MIB, noise(5, 12_345)), size: 0 },
    // Longer, and shorter, than was said.
    { name: 'g', bytes: noise(6, 2 * MIB + 7), size: 1000 },
    { name: 'h', bytes: noise(7, 1000), size: 2 * MIB },
  ]
  const repository = await makeRepository({ chunking: DEFAULT_CHUNKING })
  try {
    for (const workers of [0, 2]) {
      const summary = await backUp(repository, deliveredSource(files, []), { workers, kind: 'full' })
      const back = await readBack(repository, await snapshotOf(repository, summary.snapshot), '')
      for (const { name, bytes } of files) {
        const found = back.get(`/${name}`)
        assert.deepEqual([found?.['size'], found?.['sha256']], [bytes.length, sha256Hex(bytes)], name)
      }
    }
  } finally {
    dropRepository(repository)
  }
})

test('damaged pages are listed up to a limit, and counted beyond', async () => {
  const repository = await makeRepository({ chunking: DEFAULT_CHUNKING })
  // No checksum is 0; a page of zeros was never written.
  const page = Buffer.alloc(PAGE, 1).fill(0, 8, 10)
  const bad = Buffer.alloc(100 * PAGE, page)
  const mixed = Buffer.concat([
    Buffer.alloc(PAGE),
    bad.subarray(0, PAGE),
    Buffer.alloc(PAGE),
    bad.subarray(0, 9),
  ])
  const many = Buffer.alloc(100_002 * PAGE, page)
  const damaged: string[] = []
  try {
    await backUp(repository, deliveredSource([{ name: 'mixed', bytes: mixed, isPages: true }], damaged))
    assert.deepEqual(damaged.splice(0), ['/mixed 2 0 1 3'])
    const files = [
      { name: 'many', bytes: many, isPages: true },
      { name: 'then', bytes: bad, isPages: true },
    ]
    await backUp(repository, deliveredSource(files, damaged))
    assert.deepEqual(damaged, ['/many 100000 2 0 1 2', '/then 0 100 '])
  } finally {
    dropRepository(repository)
  }
})

import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import type { CacheRecord } from '../repo/tree-cache.ts'
import { newEntrySorter, sortedEntries, sortEntry } from './entry-sorter.ts'

function recordOf(name: string, content: Uint8Array): CacheRecord {
  const entry = {
    name,
    type: 'file' as const,
    mode: 0o600,
    uid: 1,
    gid: 2,
    mtime: 3n,
    ctime: 4n,
    dev: 0,
    inode: 0n,
    links: 1,
    size: content.length,
    target: '',
    major: 0,
    minor: 0,
    xattrs: [],
    flags: 0,
    content,
    node: undefined,
  }
  return { kind: 'entry', entry, marks: [1, content.length], pages: [] }
}

/** Order by naive comparison of the names on the way. */
function comparePaths(a: string, b: string): number {
  const [left, right] = [a.split('/'), b.split('/')]
  for (let at = 0; ; at++) {
    const [x, y] = [left[at], right[at]]
    if (x === undefined || y === undefined) return left.length - right.length
    if (x !== y) return x < y ? -1 : 1
  }
}

function inFolder(body: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-sort-'))
  try {
    body(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('entries come out in walk order with all they hold, whether they fit in memory or not', () => {
  const name = fc
    .string({
      unit: fc.constantFrom('a', 'b', '.', '-', '\x01', '\xff'),
      minLength: 1,
      maxLength: 4,
    })
    .filter((one) => one !== '.' && one !== '..')
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => `/${names.join('/')}`)
  fc.assert(
    fc.property(
      fc.uniqueArray(path, { maxLength: 60 }),
      fc.constantFrom(1, 300, 1 << 20),
      (paths, bytesMax) => {
        inFolder((folder) => {
          const sorter = newEntrySorter(folder, bytesMax)
          for (const one of paths) {
            const record = recordOf(one.split('/').at(-1)!, Buffer.from(one, 'latin1'))
            sortEntry(sorter, { path: one, record })
          }
          const sorted = Array.from(sortedEntries(sorter), ({ path: at, record }) => {
            assert.equal(Buffer.from(record.entry!.content).toString('latin1'), at)
            assert.deepEqual(record.marks, [1, at.length])
            return at
          })
          assert.deepEqual(sorted, paths.toSorted(comparePaths))
        })
      },
    ),
    { numRuns: 60 },
  )
})

test('what is written out is sealed', () => {
  inFolder((folder) => {
    const sorter = newEntrySorter(folder, 1)
    sortEntry(sorter, { path: '/card', record: recordOf('card', Buffer.from('4111 1111')) })
    assert.deepEqual(readdirSync(folder), ['entries-0'])
    assert.equal(readFileSync(join(folder, 'entries-0')).includes('4111'), false)
    assert.deepEqual(
      Array.from(sortedEntries(sorter), ({ path }) => path),
      ['/card'],
    )
  })
})

test('a full disk is a clear error', () => {
  const sorter = newEntrySorter('/nonexistent', 1)
  assert.throws(() => sortEntry(sorter, { path: '/a', record: recordOf('a', Buffer.alloc(1)) }), {
    name: 'Failure',
    code: 'host.file',
    message: /Cannot write the sorted entries/,
  })
})

/**
 * Finds pages of a relation's file whose checksum is not right (storage/page/bufpage.c PageIsVerified). Which
 * of them were only written while they were read, torn-pages.ts tells.
 */
import { PAGE_BYTES, pageChecksum } from './page-checksum.ts'

/** How the pages of one file are checked. */
export interface ChecksumRule {
  /** Number of the file's first page in its relation fork. */
  readonly firstBlock: number
}

/** Lower half: pd_checksum; words 3 and up: pd_lower, pd_upper. */
const CHECKSUM_WORD = 2
const UPPER_WORD = 3

/**
 * Numbers, in the file, of the pages in `bytes` that are damaged; `offset` is where `bytes` begin in the
 * file. A part of a page at the end of the file is damaged too.
 */
export function damagedPages(bytes: Uint8Array, offset: number, rule: ChecksumRule): number[] {
  const words = wordsOf(bytes)
  const first = offset / PAGE_BYTES
  const damaged: number[] = []
  const pages = Math.floor(bytes.length / PAGE_BYTES)
  for (let page = 0; page < pages; page++) {
    const at = page * (PAGE_BYTES / 4)
    if (isNew(words, at)) continue
    const stored = words[at + CHECKSUM_WORD]! & 0xffff
    if (stored !== pageChecksum(words, at, rule.firstBlock + first + page)) damaged.push(first + page)
  }
  if (bytes.length % PAGE_BYTES > 0) damaged.push(first + pages)
  return damaged
}

function wordsOf(bytes: Uint8Array): Int32Array {
  const isAligned = bytes.byteOffset % 4 === 0
  const whole = isAligned ? bytes : Uint8Array.from(bytes)
  return new Int32Array(whole.buffer, whole.byteOffset, Math.floor(whole.length / 4))
}

/** A page that was added and not filled yet is all zeros (PageIsNew, then the loop over all words). */
function isNew(words: Int32Array, at: number): boolean {
  if (words[at + UPPER_WORD]! >>> 16 !== 0) return false
  for (let word = at; word < at + PAGE_BYTES / 4; word++) if (words[word] !== 0) return false
  return true
}

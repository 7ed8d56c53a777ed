/** Looks at the checksum of every page of a stopped copy, as the recovery has left them. */
import { constants, globSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { ControlFile } from '../sources/postgres/control-file.ts'
import { damagedPages } from '../sources/postgres/page-check.ts'
import { PAGE_BYTES } from '../sources/postgres/page-checksum.ts'
import { throwIfCancelled } from './check-threads.ts'

export interface DamagedFile {
  /** Below the data folder. */
  readonly path: string
  /** Numbers of the first of them in the file. */
  readonly pages: readonly number[]
  readonly count: number
}

/** Relations and their initial forks. Maps are made anew by the server when they are bad. */
const RELATION = /^\d+(?:_init)?(?:\.(\d+))?$/
const PLACES = ['global/*', 'base/*/*', 'pg_tblspc/*/PG_*/*/*']
/** The copy is the server's user's: a link or a pipe in the place of a file is not followed, nor waited for. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
const READ_BYTES = 4 * 1024 * 1024
const PAGES_SHOWN_MAX = 10

/** Fails: cancelled. */
export async function checkPageSums(
  data: string,
  { fileBlocks }: Pick<ControlFile, 'fileBlocks'>,
  signal: AbortSignal | undefined,
): Promise<{ pages: number; damaged: DamagedFile[] }> {
  const bytes = Buffer.allocUnsafeSlow(READ_BYTES)
  const damaged: DamagedFile[] = []
  let pages = 0
  for (const path of globSync(PLACES, { cwd: data })) {
    const parts = RELATION.exec(basename(path))
    if (parts === null) continue
    const rule = { firstBlock: Number(parts[1] ?? 0) * fileBlocks }
    const bad: number[] = []
    let count = 0
    const file = await open(join(data, path), READ_FLAGS)
    try {
      for (let offset = 0; ;) {
        throwIfCancelled(signal)
        const { bytesRead } = await file.read(bytes, 0, READ_BYTES, offset)
        if (bytesRead === 0) break
        const found = damagedPages(bytes.subarray(0, bytesRead), offset, rule)
        count += found.length
        bad.push(...found.slice(0, PAGES_SHOWN_MAX - bad.length))
        offset += bytesRead
        pages += Math.ceil(bytesRead / PAGE_BYTES)
      }
    } finally {
      await file.close()
    }
    if (count > 0) damaged.push({ path, pages: bad, count })
  }
  return { pages, damaged }
}

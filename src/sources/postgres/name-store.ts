/**
 * Names that were noted in tail pieces only, kept beside the spool: when tails are merged after a restart,
 * the log can be read again, but what a relation was called cannot be asked again once it is dropped.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { errnoOf } from '../../base/failure.ts'
import type { NameNote } from './log-notes.ts'

const FILE = 'names.json'
const id = z.int().min(0)
const shape = z.array(
  z.object({
    lsn: z
      .string()
      .regex(/^\d{1,20}$/)
      .transform(BigInt),
    files: z.object({ tablespace: id, database: id, relation: id }),
    schema: z.string(),
    name: z.string(),
  }),
)

/** None where there is no file, or one that cannot be read. */
export function loadNames(folder: string): NameNote[] {
  try {
    return shape.parse(JSON.parse(readFileSync(join(folder, FILE), 'utf8')))
  } catch (error) {
    if (error instanceof z.ZodError || error instanceof SyntaxError || errnoOf(error) !== undefined) return []
    throw error
  }
}

/** Not durable, and left alone where the disk refuses: without it a drop has a number and no name. */
export function saveNames(folder: string, names: readonly NameNote[]): void {
  const path = join(folder, FILE)
  try {
    const text = JSON.stringify(names.map((note) => ({ ...note, lsn: String(note.lsn) })))
    writeFileSync(`${path}.new`, text, { mode: 0o600 })
    renameSync(`${path}.new`, path)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}

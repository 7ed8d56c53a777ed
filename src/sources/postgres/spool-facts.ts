/**
 * What a spool remembers of its log that the log does not say, in `facts.json` beside it. Where the file is
 * lost less is known: log that comes again is refused, and the end counts as torn where no record ends.
 */
import { join } from 'node:path'
import * as z from 'zod'
import type { Lsn } from './lsn.ts'
import { readSmall, writeDurably, type SpoolSystem } from './spool-files.ts'

export interface SpoolFacts {
  /** Where the log of a timeline began: what is gone of it since then is durable elsewhere. */
  readonly begins: ReadonlyMap<number, Lsn>
  /** Up to there the log came in whole files, and was synced: it is sound wherever its records end. */
  readonly sound: { readonly timeline: number; readonly lsn: Lsn } | undefined
}

export const NO_FACTS: SpoolFacts = { begins: new Map(), sound: undefined }

const FILE = 'facts.json'
const position = z.object({
  timeline: z.int().min(1),
  lsn: z
    .string()
    .regex(/^\d{1,20}$/)
    .transform(BigInt),
})
const shape = z.object({ begins: z.array(position), sound: position.optional() })

/** None where there is no file, or a damaged one. Fails: host.file. */
export function readFacts({ path }: SpoolSystem): SpoolFacts {
  const text = readSmall(join(path, FILE))
  if (text === undefined) return NO_FACTS
  try {
    const { begins, sound } = shape.parse(JSON.parse(text))
    return { begins: new Map(begins.map(({ timeline, lsn }) => [timeline, lsn])), sound }
  } catch (error) {
    if (error instanceof z.ZodError || error instanceof SyntaxError) return NO_FACTS
    throw error
  }
}

/** Durable when it returns. Fails: host.full, host.file. */
export function writeFacts({ path }: SpoolSystem, { begins, sound }: SpoolFacts): void {
  const said = {
    begins: Array.from(begins, ([timeline, lsn]) => ({ timeline, lsn: `${lsn}` })),
    sound: sound && { ...sound, lsn: `${sound.lsn}` },
  }
  writeDurably(path, FILE, Buffer.from(JSON.stringify(said)))
}

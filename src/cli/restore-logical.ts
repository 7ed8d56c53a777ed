/** The part of `backstock restore` that says how dumps go back into a server. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../base/failure.ts'
import { quoteShell } from '../base/shell.ts'
import { LOGICAL_PATHS, type DumpRecord } from '../sources/postgres/logical-paths.ts'
import type { InputOf } from './commands.ts'

/** Every server has these: pg_restore cannot make them. */
const ALWAYS_THERE = new Set(['postgres.dump', 'template1.dump'])
const GENERAL = 'postgres'

/** Refuses a moment in time: dumps have none but their own. Fails: usage.invalid. */
export function refuseMoment(name: string, { at }: InputOf<'restore'>): void {
  if (at === undefined) return
  const is = `"${name}" holds dumps (mode: logical), which have no log: nothing in between can be restored`
  throw new Failure('usage.invalid', `Cannot use --at: ${is}`, {
    facts: { source: name, hint: 'Choose one of its snapshots with --snapshot ID (`backstock snapshots`).' },
  })
}

/** What brings the restored dumps into a new server that the PG* variables lead to, in this order. */
export function restoreCommands(folder: string): string[] {
  const { globals, databases, server } = LOGICAL_PATHS
  // The folder may hold dumps of an earlier restore too.
  const record = JSON.parse(readFileSync(join(folder, server), 'utf8')) as DumpRecord
  const files = record.dumps.map(({ file }) => file)
  return [
    `psql -X -d ${GENERAL} -f ${quoteShell(join(folder, globals))}`,
    ...files.map((file) => {
      const path = quoteShell(join(folder, databases, file))
      if (!ALWAYS_THERE.has(file)) return `pg_restore --create -d ${GENERAL} ${path}`
      return `pg_restore -d ${file.replace(/\.dump$/, '')} ${path}`
    }),
  ]
}

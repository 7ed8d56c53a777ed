/** `backstock find`: in which snapshots is it? */
import { displayName } from '../../base/file-entry.ts'
import { findEntries, newSearch } from '../../recovery/find.ts'
import { parseNamedSource, snapshotsOfSource, sourceLabel } from '../../repo/select-snapshot.ts'
import type { StoredSnapshot } from '../../repo/snapshots.ts'
import { closeSnapshot } from '../../repo/tree-reader.ts'
import { chooseKnown, knownSnapshots, type KnownSnapshots, requireStoredSource } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { entryFacts, flushLines, newLineWriter, writeLine } from '../entries.ts'
import { withRepository } from '../open-repository.ts'
import { harmless } from '../print.ts'
import { openShown } from '../rebuilt.ts'

/** Exit status 1 when nothing is found, as of grep. */
export async function run(context: CommandContext, input: InputOf<'find'>): Promise<number> {
  return withRepository(context, async (repository) => {
    const { json } = context.printer
    const known = await knownSnapshots(context, repository)
    for (const name of input.source) requireStoredSource(repository.loaded, known, name)
    const snapshots = chosen(context, known, input)
    const isMixed = new Set(known.snapshots.map(({ domain }) => domain)).size > 1
    const search = newSearch(input.patterns)
    const writer = newLineWriter(context)
    let entries = 0
    for (const snapshot of snapshots) {
      const { id, source, domain } = snapshot
      const label = isMixed ? sourceLabel(snapshot, known.writers) : source
      const reader = await openShown(context.printer, repository, snapshot)
      try {
        for (const { path, entry } of await findEntries(search, reader, context.signal)) {
          entries++
          const facts = { type: 'entry', snapshot: id, source, domain, ...entryFacts(path, entry) }
          await writeLine(
            writer,
            json ? JSON.stringify(facts) : harmless(`${label}:${id} ${displayName(path)}`),
          )
        }
      } finally {
        closeSnapshot(reader)
      }
    }
    const summary = { type: 'summary', command: 'find', snapshots: snapshots.length, entries }
    if (json) await writeLine(writer, JSON.stringify(summary))
    await flushLines(writer)
    return entries > 0 ? 0 : 1
  })
}

/** The named ones, else all of the named sources, else all; the newest last. */
function chosen(
  context: CommandContext,
  known: KnownSnapshots,
  { snapshot, source }: InputOf<'find'>,
): readonly StoredSnapshot[] {
  const { snapshots: all, writers } = known
  const named =
    snapshot.length === 0 ? all : [...new Set(snapshot.map((one) => chooseKnown(context, known, one)))]
  if (source.length === 0) return named
  const wanted = source.flatMap((one) => snapshotsOfSource(named, parseNamedSource(one), writers))
  return named.filter((one) => wanted.includes(one))
}

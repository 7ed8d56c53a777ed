/** `backstock snapshots`: what there is. Needs no key to contents: a writer may list too. */
import { listSnapshots, type StoredSnapshot } from '../../repo/snapshots.ts'
import { missingHeads } from '../../repo/heads.ts'
import { parseNamedSource, snapshotsOfSource, sourceLabel } from '../../repo/select-snapshot.ts'
import { requireStoredSource, writersOf } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCount, formatCounted } from '../human.ts'
import { withRepository } from '../open-repository.ts'
import { printEvent, printSummary, printTable, showMoment, warn } from '../print.ts'
import { shownKind, snapshotFacts } from '../snapshot-facts.ts'
import type { Column } from '../table.ts'

const columns: readonly Column[] = [
  { title: 'SNAPSHOT' },
  { title: 'SOURCE', flexible: true },
  { title: 'COMPLETED' },
  { title: 'KIND' },
  { title: 'FILES', align: 'right' },
  { title: 'SIZE', align: 'right' },
  { title: 'STORED', align: 'right' },
  { title: 'TAGS' },
]

export async function run(context: CommandContext, input: InputOf<'snapshots'>): Promise<number> {
  return withRepository(context, async ({ access, host, loaded }) => {
    const { printer } = context
    const named = input.source === undefined ? undefined : parseNamedSource(input.source)
    const scope = named === undefined ? {} : { source: named.source }
    const { snapshots: found, bad, revoked } = await listSnapshots(access.store, access.config, scope)
    const writers = writersOf(access)
    const snapshots = named === undefined ? found : snapshotsOfSource(found, named, writers)
    for (const { name, failure } of bad) warn(printer, `${name} does not count: ${failure.message}`)
    for (const text of missingHeads(host, [...found, ...revoked], scope)) warn(printer, text)
    if (input.source !== undefined && snapshots.length + bad.length === 0) {
      const all = await listSnapshots(access.store, access.config)
      requireStoredSource(loaded, { ...all, writers }, input.source)
    }
    const tagged = snapshots.filter((one) => input.tag.every((tag) => one.tags.includes(tag)))
    const shown = newestOfEach(tagged, input.latest).toSorted(byCompletion)
    const isMixed = new Set(snapshots.map(({ domain }) => domain)).size > 1
    const writerOf = ({ domain }: StoredSnapshot): string => writers.names.get(domain) ?? domain
    for (const one of shown)
      printEvent(printer, { type: 'snapshot', ...snapshotFacts(one), writer: writerOf(one) })
    if (shown.length > 0) {
      printTable(
        printer,
        columns,
        shown.map((one) => [
          one.id,
          isMixed ? sourceLabel(one, writers) : one.source,
          showMoment(printer, Date.parse(one.completed)),
          shownKind(one),
          formatCount(one.totals.files),
          formatBytes(one.totals['bytes'] ?? 0),
          formatBytes(snapshotFacts(one).bytesStored),
          one.tags.join(','),
        ]),
      )
    }
    const summary = {
      type: 'summary',
      command: 'snapshots',
      snapshots: shown.length,
      bad: bad.length,
    } as const
    printSummary(printer, summary, [formatCounted(shown.length, 'snapshot')])
    return 0
  })
}

function newestOfEach(
  snapshots: readonly StoredSnapshot[],
  latest: number | undefined,
): readonly StoredSnapshot[] {
  if (latest === undefined) return snapshots
  const streams = Map.groupBy(snapshots, (one) => `${one.domain}/${one.source}`)
  return [...streams.values()].flatMap((of) => of.toSorted((a, b) => a.counter - b.counter).slice(-latest))
}

function byCompletion(a: StoredSnapshot, b: StoredSnapshot): number {
  return Date.parse(a.completed) - Date.parse(b.completed) || (a.id < b.id ? -1 : 1)
}

/** `backstock snapshots`: what there is. Needs no key to contents: a writer may list too. */
import { listSnapshots, type StoredSnapshot } from '../../repo/snapshots.ts'
import { missingHeads } from '../../repo/heads.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { formatBytes, formatCount, formatCounted } from '../human.ts'
import { withRepository } from '../open-repository.ts'
import { printEvent, printSummary, printTable, showMoment, warn } from '../print.ts'
import { snapshotFacts } from '../snapshot-facts.ts'
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
  return withRepository(context, async ({ access, host }) => {
    const { printer } = context
    const scope = input.source === undefined ? {} : { source: input.source }
    const { snapshots, bad } = await listSnapshots(access.store, access.config, scope)
    for (const { name, failure } of bad) warn(printer, `${name} does not count: ${failure.message}`)
    for (const text of missingHeads(host, snapshots, scope)) warn(printer, text)
    const tagged = snapshots.filter((one) => input.tag.every((tag) => one.tags.includes(tag)))
    const shown = newestOfEach(tagged, input.latest).toSorted(byCompletion)
    for (const one of shown) printEvent(printer, { type: 'snapshot', ...snapshotFacts(one) })
    if (shown.length > 0) {
      printTable(
        printer,
        columns,
        shown.map((one) => [
          one.id,
          one.source,
          showMoment(printer, Date.parse(one.completed)),
          one.partial ? `${one.kind} (partial)` : one.kind,
          formatCount(one.totals['files'] ?? 0),
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
  const bySource = Map.groupBy(snapshots, (one) => one.source)
  return [...bySource.values()].flatMap((of) => of.toSorted(byCompletion).slice(-latest))
}

function byCompletion(a: StoredSnapshot, b: StoredSnapshot): number {
  return Date.parse(a.completed) - Date.parse(b.completed) || (a.id < b.id ? -1 : 1)
}

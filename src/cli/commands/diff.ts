/** `backstock diff`: what changed between two snapshots. */
import { displayName } from '../../base/file-entry.ts'
import { type Change, diffSnapshots } from '../../recovery/diff.ts'
import { closeSnapshot } from '../../repo/tree-reader.ts'
import { chooseKnown, knownSnapshots } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { entryFacts, flushLines, newLineWriter, writeLine } from '../entries.ts'
import { formatBytes, formatCount } from '../human.ts'
import { withRepository } from '../open-repository.ts'
import { pathFacts } from '../paths.ts'
import { harmless } from '../print.ts'
import { openShown } from '../rebuilt.ts'

const MARKS = { added: '+', removed: '-', changed: 'M', metadata: 'm', moved: 'R' } as const

interface Totals {
  added: number
  removed: number
  changed: number
  metadata: number
  moved: number
  bytesAdded: number
  bytesRemoved: number
}

export async function run(context: CommandContext, input: InputOf<'diff'>): Promise<number> {
  return withRepository(context, async (repository) => {
    const known = await knownSnapshots(context, repository)
    const from = chooseKnown(context, known, input.from)
    const to = chooseKnown(context, known, input.to)
    const before = await openShown(context.printer, repository, from)
    const after = await openShown(context.printer, repository, to)
    try {
      const totals = newTotals()
      const writer = newLineWriter(context)
      const { json, quiet } = context.printer
      for await (const change of diffSnapshots(before, after)) {
        context.signal.throwIfAborted()
        count(totals, change)
        await writeLine(writer, json ? JSON.stringify(changeFacts(change)) : changeLine(change))
      }
      if (json) {
        const event = { type: 'summary', command: 'diff', from: from.id, to: to.id, ...totals }
        await writeLine(writer, JSON.stringify(event))
      } else if (!quiet) await writeLine(writer, summaryLine(totals))
      await flushLines(writer)
      return 0
    } finally {
      closeSnapshot(before)
      closeSnapshot(after)
    }
  })
}

function newTotals(): Totals {
  return { added: 0, removed: 0, changed: 0, metadata: 0, moved: 0, bytesAdded: 0, bytesRemoved: 0 }
}

/** Sizes of files that were added, removed or changed, old and new. */
function count(totals: Totals, { kind, before, after }: Change): void {
  totals[kind]++
  if (kind === 'metadata' || kind === 'moved') return
  totals.bytesRemoved += before?.size ?? 0
  totals.bytesAdded += after?.size ?? 0
}

function changeLine({ kind, path, from, before, after }: Change): string {
  const isFolder = (after ?? before)?.node !== undefined
  const { size: old } = before ?? { size: 0 }
  const { size: now } = after ?? { size: 0 }
  const sizes =
    kind === 'metadata' || (old === 0 && now === 0)
      ? ''
      : kind === 'changed'
        ? ` (${formatBytes(old)} -> ${formatBytes(now)})`
        : ` (${formatBytes(kind === 'added' ? now : old)})`
  const was = from === undefined ? '' : `${harmless(displayName(from))} -> `
  return `${MARKS[kind]} ${was}${harmless(displayName(path))}${isFolder ? '/' : ''}${sizes}`
}

function changeFacts({ kind, path, from, before, after }: Change): Record<string, unknown> {
  return {
    type: 'change',
    change: kind,
    ...pathFacts(path),
    ...(from === undefined ? {} : { from: pathFacts(from) }),
    ...(before === undefined ? {} : { before: withoutPath(before) }),
    ...(after === undefined ? {} : { after: withoutPath(after) }),
  }
}

function withoutPath(entry: NonNullable<Change['after']>): Record<string, unknown> {
  const { path: _path, pathBytes: _bytes, ...facts } = entryFacts('', entry)
  return facts
}

function summaryLine(totals: Totals): string {
  const { added, removed, changed, metadata, moved, bytesAdded, bytesRemoved } = totals
  const counts = [
    `${formatCount(added)} added`,
    `${formatCount(removed)} removed`,
    `${formatCount(changed)} changed`,
    `${formatCount(moved)} moved`,
    `${formatCount(metadata)} with new metadata`,
  ]
  return `${counts.join(', ')}; ${formatBytes(bytesAdded)} new, ${formatBytes(bytesRemoved)} gone`
}

/** `backstock ls`: a folder of a snapshot, or everything below it. */
import { domainKeys, openDetails } from '../../repo/keys.ts'
import { closeSnapshot, readDirectory, rootNode, type SnapshotReader } from '../../repo/tree-reader.ts'
import { displayName } from '../../base/file-entry.ts'
import type { TreeEntry } from '../../format/tree.ts'
import { chooseSnapshot } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import {
  entryFacts,
  flushLines,
  type LineWriter,
  longLine,
  newLineWriter,
  type Owners,
  writeLine,
} from '../entries.ts'
import { withRepository } from '../open-repository.ts'
import { findTyped } from '../paths.ts'
import { harmless } from '../print.ts'
import { openShown } from '../rebuilt.ts'

interface Listing {
  readonly context: CommandContext
  readonly reader: SnapshotReader
  readonly owners: Owners
  readonly writer: LineWriter
  readonly long: boolean
  readonly recursive: boolean
  entries: number
}

export async function run(context: CommandContext, input: InputOf<'ls'>): Promise<number> {
  return withRepository(context, async (repository) => {
    const { access } = repository
    const snapshot = await chooseSnapshot(context, repository, input.snapshot)
    const reader = await openShown(context.printer, repository, snapshot)
    try {
      const place = { repository: access.config.repository, name: snapshot.name }
      const owners = openDetails(await domainKeys(access, snapshot.domain), place, snapshot)
      const writer = newLineWriter(context)
      const { long, recursive } = input
      const listing: Listing = { context, reader, owners, writer, long, recursive, entries: 0 }
      await listPath(listing, input.path ?? '/')
      if (context.printer.json) {
        const { id, source } = snapshot
        const summary = { type: 'summary', command: 'ls', snapshot: id, source, entries: listing.entries }
        await writeLine(writer, JSON.stringify(summary))
      }
      await flushLines(writer)
      return 0
    } finally {
      closeSnapshot(reader)
    }
  })
}

async function listPath(listing: Listing, typed: string): Promise<void> {
  const { path, entry } = await findTyped(listing.reader, typed)
  if (entry === undefined) await listFolder(listing, '', rootNode(listing.reader))
  else if (entry.node === undefined) await listEntry(listing, path, entry)
  else await listFolder(listing, path, entry.node)
}

async function listFolder(listing: Listing, base: string, node: Uint8Array): Promise<void> {
  for await (const entry of readDirectory(listing.reader, node)) {
    const path = `${base}/${entry.name}`
    await listEntry(listing, path, entry)
    if (listing.recursive && entry.node !== undefined) await listFolder(listing, path, entry.node)
  }
}

async function listEntry(listing: Listing, path: string, entry: TreeEntry): Promise<void> {
  const { context, owners, writer, long } = listing
  listing.entries++
  if (context.printer.json) {
    await writeLine(writer, JSON.stringify({ type: 'entry', ...entryFacts(path, entry, owners) }))
  } else if (long) {
    await writeLine(writer, longLine(context, path, entry, owners))
  } else {
    await writeLine(writer, harmless(displayName(path)) + (entry.node === undefined ? '' : '/'))
  }
}

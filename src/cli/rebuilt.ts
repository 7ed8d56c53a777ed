/** What people are told when part of the index is lost and was made again from the packs. */
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import type { RebuiltSet } from '../repo/rebuild.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { openSnapshot, type SnapshotReader } from '../repo/tree-reader.ts'
import { formatCounted } from './human.ts'
import { warn, type Printer } from './print.ts'

/** openSnapshot(), with a warning if its index had to be made again. */
export async function openShown(
  printer: Printer,
  { access, host }: { readonly access: Access; readonly host: HostFolder },
  snapshot: StoredSnapshot,
): Promise<SnapshotReader> {
  const reader = await openSnapshot(access, host, snapshot)
  warnRebuilt(printer, reader.rebuilt)
  return reader
}

/** One warning for all of them; nothing if there are none. */
export function warnRebuilt(printer: Printer, rebuilt: readonly RebuiltSet[]): void {
  if (rebuilt.length === 0) return
  let [found, expected] = [0, 0]
  for (const { packs, packsExpected } of rebuilt) {
    found += packs.length
    expected += Math.max(packs.length, packsExpected)
  }
  const sets = formatCounted(rebuilt.length, 'pack set')
  const but = found < expected ? `, ${formatCounted(expected - found, 'pack')} of them cannot be found` : ''
  warn(
    printer,
    `index runs of ${sets} are lost or damaged: the index was made again from ` +
      `${formatCounted(found, 'pack')}${but} (see \`backstock check\`)`,
  )
}

/** For the summary of --json: the pack sets, or nothing if none was rebuilt. */
export function rebuiltFacts(rebuilt: readonly RebuiltSet[]): { rebuilt?: readonly string[] } {
  return rebuilt.length === 0 ? {} : { rebuilt: rebuilt.map(({ packSet }) => packSet) }
}

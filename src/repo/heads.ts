/**
 * Whether the store still shows the newest snapshots that this host has seen: one that hides them would make
 * an old state look like the latest.
 */
import { type HostFolder, readHostState } from './host-folder.ts'
import type { StoredSnapshot } from './snapshots.ts'

/** A sentence for each stream whose newest known snapshot is not among `snapshots` (all of the given scope). */
export function missingHeads(
  host: HostFolder,
  snapshots: readonly StoredSnapshot[],
  scope: { readonly source?: string } = {},
): string[] {
  const found = new Map<string, number>()
  const hashes = new Set<string>()
  for (const { domain, source, counter, sha256 } of snapshots) {
    const stream = `${domain}/${source}`
    found.set(stream, Math.max(found.get(stream) ?? 0, counter))
    hashes.add(sha256)
  }
  const texts: string[] = []
  for (const [stream, head] of Object.entries(readHostState(host).heads)) {
    const source = stream.slice(stream.indexOf('/') + 1)
    if (scope.source !== undefined && scope.source !== source) continue
    const counter = found.get(stream) ?? 0
    if (counter > head.counter || hashes.has(head.sha256)) continue
    const is = counter === 0 ? 'none of them is there' : `the newest there is number ${counter}`
    texts.push(
      `the store shows an older state of "${source}" than this host has seen: ` +
        `${is}, snapshot number ${head.counter} is missing`,
    )
  }
  return texts
}

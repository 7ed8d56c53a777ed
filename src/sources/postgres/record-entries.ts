/** Hands the record of a server to the receiver of its backup: /server.json, and /config with its folders. */
import type { FileEntry } from '../../base/file-entry.ts'
import type { Receiver } from '../source.ts'
import { CLUSTER_PATHS } from './cluster-paths.ts'
import type { ServerRecord } from './server-record.ts'

/** For entries that have no owner and time of their own. */
export type EntryBase = Omit<FileEntry, 'name' | 'type' | 'mode'>

/** Fails: as the receiver fails. */
export async function deliverRecord(
  receiver: Receiver,
  record: ServerRecord,
  base: EntryBase,
): Promise<void> {
  const { config, server } = CLUSTER_PATHS
  const put = async (path: string, bytes: Buffer): Promise<void> => {
    const entry = { ...base, name: nameOf(path), type: 'file', mode: 0o600, size: bytes.length } as const
    receiver.beginFile(path, entry, undefined)
    const isFull = bytes.length > 0 && receiver.takeBytes(bytes)
    receiver.endFile()
    if (isFull) await receiver.room()
  }
  await put(server, record.json)
  const folders = new Set<string>()
  for (const { path, bytes } of record.files) {
    const names = path.split('/').slice(1, -1)
    for (let depth = 0; depth <= names.length; depth++) {
      const folder = [config, ...names.slice(0, depth)].join('/')
      if (folders.has(folder)) continue
      folders.add(folder)
      receiver.takeEntry(folder, { ...base, name: nameOf(folder), type: 'directory', mode: 0o700 })
    }
    await put(`${config}${path}`, bytes)
  }
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

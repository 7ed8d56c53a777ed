/** Logs listed with the host's memory of their headers, for commands that people wait for. */
import { isFailure } from '../base/failure.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import { loadLogTable, saveLogTable } from '../repo/log-cache.ts'
import { LOG_ROW_BYTES, type LogTable } from '../repo/log-table.ts'
import { listLogs, type LogList } from '../repo/logs.ts'

/** As listLogs(); what is new is remembered. A cache folder that cannot be used costs time only. */
export async function listKnownLogs(
  access: Access,
  host: HostFolder,
  scope: { readonly source: string; readonly domain?: string; readonly signal?: AbortSignal },
): Promise<LogList> {
  const before = new Map<string, LogTable | undefined>()
  const list = await listLogs(access, {
    ...scope,
    known: (of) => {
      const table = withoutHost(() => loadLogTable(host, access.config, of))
      before.set(`${of.domain}/${of.branch}`, table)
      return table
    },
  })
  for (const table of list.branches)
    if (!isSame(before.get(`${table.domain}/${table.branch}`), table))
      withoutHost(() => saveLogTable(host, access.config, table))
  return list
}

function isSame(known: LogTable | undefined, table: LogTable): boolean {
  const rowsOf = ({ rows, count }: LogTable): Buffer => rows.subarray(0, count * LOG_ROW_BYTES)
  return known !== undefined && rowsOf(known).equals(rowsOf(table))
}

function withoutHost<T>(call: () => T): T | undefined {
  try {
    return call()
  } catch (error) {
    if (isFailure(error, 'host.file')) return undefined
    throw error
  }
}

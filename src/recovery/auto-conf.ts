/**
 * postgresql.auto.conf of a restored cluster: the file that a server reads last, so that what it says counts,
 * and that pg_verifybackup does not look at. Lines that are put there carry a mark, to be found again.
 */
import { chownSync, lstatSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'

export interface AutoConf {
  /** Raw; without those of the marks. */
  readonly lines: readonly string[]
  readonly mode: number
}

export interface MarkedSettings {
  readonly mark: string
  /** By name. */
  readonly settings: Readonly<Record<string, string>>
}

/** Of the running user. */
export type FileOwner = { readonly uid: number; readonly gid: number } | undefined

export const AUTO_CONF = 'postgresql.auto.conf'
export const SET_ASIDE_MARK = '# backstock: set aside'
export const PLACE_MARK = '# backstock: it lay elsewhere'
export const LIMITS_MARK = '# backstock: its log needs as many'
export const RECOVERY_MARK = '# backstock: recovery'
const MODE_USUAL = 0o600

/** `folder`: the data folder, raw. Fails: restore.failed. */
export function readAutoConf(folder: string, ...marks: readonly string[]): AutoConf {
  const path = pathBytes(join(folder, AUTO_CONF))
  return orFailed(folder, () => {
    const stats = lstatSync(path, { throwIfNoEntry: false })
    // Through a link that somebody planted another file would be read, and written.
    if (stats?.isFile() !== true) return { lines: [], mode: MODE_USUAL }
    const lines = readFileSync(path, 'latin1').replace(/\n$/, '').split('\n')
    return {
      lines: lines.filter((line) => !marks.some((mark) => line.endsWith(mark))),
      mode: stats.mode & 0o777,
    }
  })
}

/** Not synced. The settings come behind the lines that stay. Fails: restore.failed. */
export function writeAutoConf(
  folder: string,
  { lines, mode }: AutoConf,
  { mark, settings }: MarkedSettings,
  owner: FileOwner,
): void {
  const path = pathBytes(join(folder, AUTO_CONF))
  const added = Object.entries(settings).map(([name, value]) => `${name} = ${quoteSetting(value)} ${mark}`)
  orFailed(folder, () => {
    rmSync(path, { force: true })
    writeFileSync(path, [...lines, ...added, ''].join('\n'), { encoding: 'latin1', mode, flag: 'wx' })
    if (owner !== undefined) chownSync(path, owner.uid, owner.gid)
  })
}

/** As configuration files take it. */
export function quoteSetting(value: string): string {
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`
}

function orFailed<T>(folder: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot change ${AUTO_CONF} in "${displayName(folder)}": ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

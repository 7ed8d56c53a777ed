/**
 * A postgresql.conf that came with the data folder, and names files elsewhere: the server would not start
 * without them, or would start on the old data folder. Files are put into the data folder, and
 * postgresql.auto.conf names them; only `data_directory`, which it may not name, becomes a comment.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathBytes } from '../base/file-entry.ts'
import { parseConfigLine } from '../sources/postgres/config-lines.ts'
import { PLACE_MARK, readAutoConf, writeAutoConf, type FileOwner } from './auto-conf.ts'
import { readConfigFile, settingsOf } from './read-settings.ts'
import { adjustedList, HBA_MISSING, MARK, writeConfigFiles, type StoredConfig } from './restore-config.ts'

/** By setting: the file it gets. Another name than the usual, which the data folder may have too. */
const FILES = { hba_file: 'pg_hba.restored.conf', ident_file: 'pg_ident.restored.conf' } as const

/** Not synced. `folder`: the data folder, raw. Returns whether anything was to be done. Fails: restore.failed. */
export function mendInsideConfig(folder: string, stored: StoredConfig, owner: FileOwner): boolean {
  const auto = readAutoConf(folder, PLACE_MARK)
  const known = new Map([...readConfigFile(folder), ...settingsOf(auto.lines)])
  const texts: Record<string, string> = {}
  const settings: Record<string, string> = {}
  for (const name of ['hba_file', 'ident_file'] as const) {
    const path = known.get(name)
    if (path?.startsWith('/') !== true) continue
    const inside = placeInside(folder, stored, path)
    const text = listText(stored, name, path)
    if (inside !== undefined) settings[name] = inside
    else if (text !== undefined) {
      texts[FILES[name]] = text
      settings[name] = join(folder, FILES[name])
    }
  }
  if (known.has('data_directory')) texts['postgresql.conf'] = withoutDataFolder(folder)
  writeConfigFiles(folder, texts, owner)
  const isMended = Object.keys({ ...texts, ...settings }).length > 0
  if (isMended) writeAutoConf(folder, auto, { mark: PLACE_MARK, settings }, owner)
  return isMended
}

/** An absolute path of the old data folder leads to the same file in the new one. */
function placeInside(folder: string, { data }: StoredConfig, path: string): string | undefined {
  const old = data === undefined ? undefined : `${data.replace(/\/+$/, '')}/`
  if (old === undefined || !path.startsWith(old)) return undefined
  const place = join(folder, path.slice(old.length))
  return existsSync(pathBytes(place)) ? place : undefined
}

/** undefined: nothing is to be done, it is on this host, or the server can do without. */
function listText(stored: StoredConfig, name: keyof typeof FILES, path: string): string | undefined {
  if (stored.files.has(path)) return adjustedList(stored, path)
  return name === 'hba_file' && !existsSync(pathBytes(path)) ? HBA_MISSING : undefined
}

function withoutDataFolder(folder: string): string {
  const text = readFileSync(pathBytes(join(folder, 'postgresql.conf')), 'latin1')
  const lines = text.split('\n').map((line) => {
    if (parseConfigLine(line)?.name !== 'data_directory') return line
    return `${MARK} the server would start on that folder\n#${line}`
  })
  return lines.join('\n')
}

/**
 * A postgresql.conf that came with the data folder, and names files elsewhere: the server would not start
 * without them, would start on the old data folder, or write where another server does. Files are put into
 * the data folder, and postgresql.auto.conf names them; only `data_directory`, which it may not name, becomes
 * a comment, or is overruled at the end of postgresql.conf.
 */
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import { pathBytes } from '../base/file-entry.ts'
import { parseConfigLine } from '../sources/postgres/config-lines.ts'
import { PLACE_MARK, quoteSetting, readAutoConf, writeAutoConf, type FileOwner } from './auto-conf.ts'
import { filesThatSet, readConfigFile, settingsOf } from './read-settings.ts'
import {
  adjustedList,
  HBA_MISSING,
  leadsOut,
  MARK,
  writeConfigFiles,
  type StoredConfig,
} from './restore-config.ts'

/** By setting: the file it gets. Another name than the usual, which the data folder may have too. */
const FILES = { hba_file: 'pg_hba.restored.conf', ident_file: 'pg_ident.restored.conf' } as const
/** By setting of a place that a server writes to: its own. */
const OWN_PLACES = {
  external_pid_file: '',
  log_directory: 'log',
  stats_temp_directory: 'pg_stat_tmp',
} as const

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
  for (const [name, own] of Object.entries(OWN_PLACES))
    if (leadsOut(known.get(name) ?? '')) settings[name] = own
  Object.assign(texts, withoutDataFolder(folder))
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

/** Texts by name in the data folder; of those that have to change. */
function withoutDataFolder(folder: string): Record<string, string> {
  const main = 'postgresql.conf'
  const texts: Record<string, string> = {}
  let isElsewhere = false
  for (const path of filesThatSet(folder, 'data_directory')) {
    const name = path === join(folder, main) ? main : nameInside(folder, path)
    if (name === undefined) isElsewhere = true
    else texts[name] = commented(readText(path))
  }
  if (!isElsewhere) return texts
  // That file is not ours to change; the last line counts.
  const text = (texts[main] ?? readText(join(folder, main))).replace(/\n?$/, '\n')
  return { ...texts, [main]: `${text}data_directory = ${quoteSetting(folder)} ${PLACE_MARK}\n` }
}

/** undefined: it lies elsewhere, or a link leads there. */
function nameInside(folder: string, path: string): string | undefined {
  const [top, real] = [folder, path].map((each) => realpathSync(pathBytes(each), 'latin1'))
  return real!.startsWith(`${top}/`) ? real!.slice(top!.length + 1) : undefined
}

function readText(path: string): string {
  return readFileSync(pathBytes(path), 'latin1')
}

function commented(text: string): string {
  const lines = text.split('\n').filter((line) => !line.endsWith(PLACE_MARK))
  return lines
    .map((line) => {
      if (parseConfigLine(line)?.name !== 'data_directory') return line
      return `${MARK} the server would start on that folder\n#${line}`
    })
    .join('\n')
}

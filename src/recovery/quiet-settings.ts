/**
 * Keeps a restored cluster from disturbing other servers, and from waiting for them: settings that bind the
 * old server to its archive, its standbys, its primary or its publishers are set aside at the end of
 * postgresql.auto.conf, and the targets of earlier recoveries go. What was set stays where it was.
 */
import { parseConfigLine } from '../sources/postgres/config-lines.ts'
import { readAutoConf, RECOVERY_MARK, SET_ASIDE_MARK, writeAutoConf, type FileOwner } from './auto-conf.ts'
import { readConfigFile, settingsOf } from './read-settings.ts'

export interface SetAside {
  readonly name: string
  /** The statement that puts it back; undefined: it means nothing before the server is made a standby. */
  readonly putBack: string | undefined
}

interface QuietRule {
  readonly quiet: string
  /** What counts where nothing is said; undefined: the same. */
  readonly usual?: string
  /** It means something for a standby only; such a one gets its own. */
  readonly isOfStandby?: true
  /** Version before the first dot from which on it is known. */
  readonly since?: number
}

/** By name. */
const QUIET: Readonly<Record<string, QuietRule>> = {
  // With an empty command instead, log would fill the disk.
  archive_mode: { quiet: 'off' },
  synchronous_standby_names: { quiet: '' },
  synchronized_standby_slots: { quiet: '', since: 17 },
  // A subscription would take its slot away from the old server.
  max_logical_replication_workers: { quiet: '0', usual: '4' },
  primary_conninfo: { quiet: '', isOfStandby: true },
  primary_slot_name: { quiet: '', isOfStandby: true },
  // These two run in any recovery: the one deletes from an archive, the other may tell the world of a switch.
  archive_cleanup_command: { quiet: '', isOfStandby: true },
  recovery_end_command: { quiet: '', isOfStandby: true },
  recovery_min_apply_delay: { quiet: '0', isOfStandby: true },
}

/**
 * Not synced. `folder`: the data folder, raw, with its configuration in place; `major`: its version. Tells
 * what it set aside that would have counted, also when an earlier run did. Fails: restore.failed.
 */
export function quietSettings(
  folder: string,
  { major, owner }: { readonly major: number; readonly owner: FileOwner },
): SetAside[] {
  const auto = readAutoConf(folder, SET_ASIDE_MARK, RECOVERY_MARK)
  const lines = auto.lines.filter((line) => !isLeftover(line))
  const altered = settingsOf(lines)
  const known = new Map([...readConfigFile(folder), ...altered])
  const rules = Object.entries(QUIET).filter(([, { since = 0 }]) => since <= major)
  const settings = Object.fromEntries(rules.map(([name, { quiet }]) => [name, quiet]))
  writeAutoConf(folder, { ...auto, lines }, { mark: SET_ASIDE_MARK, settings }, owner)
  return rules.flatMap(([name, { quiet, usual = quiet, isOfStandby }]) => {
    if ((known.get(name) ?? usual) === quiet) return []
    const value = altered.get(name)
    const set = value === undefined ? `RESET ${name}` : `SET ${name} = ${quoteLiteral(value)}`
    return [{ name, putBack: isOfStandby === true ? undefined : `ALTER SYSTEM ${set}` }]
  })
}

/** As SQL takes it, which leaves backslashes alone; for people. */
function quoteLiteral(raw: string): string {
  return `'${Buffer.from(raw, 'latin1').toString('utf8').replaceAll("'", "''")}'`
}

/** Of an earlier recovery: a standby of this server would stop at its target. */
function isLeftover(line: string): boolean {
  const { name = '', value } = parseConfigLine(line) ?? {}
  return /^recovery_target(?:_|$)/.test(name) || (name === 'restore_command' && value === 'false')
}

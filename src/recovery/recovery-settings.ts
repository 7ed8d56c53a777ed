/**
 * Tells a restored cluster how far to recover: settings at the end of postgresql.auto.conf, which the server
 * reads last, and the signal file that makes it read them (documentation, chapter "Recovery Target").
 */
import { chownSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { formatLsn } from '../sources/postgres/lsn.ts'
import { AUTO_CONF, readAutoConf, RECOVERY_MARK, writeAutoConf, type FileOwner } from './auto-conf.ts'
import type { RecoveryTarget } from './cluster-log.ts'

/** The name that the server itself uses; it is in no base backup. */
const NEW_CONF = `${AUTO_CONF}.tmp`
/**
 * The server runs it in its data folder when it has recovered, and goes on if it fails. A target that stayed
 * would stop the standbys of this server there.
 */
const CLEANUP =
  `sed '/${RECOVERY_MARK}$/d' ${AUTO_CONF} > ${NEW_CONF} && ` +
  `{ sync ${NEW_CONF}; mv ${NEW_CONF} ${AUTO_CONF}; }`

/**
 * Not synced. `folder`: the data folder, raw. The log lies in pg_wal, where the server looks when the command
 * finds nothing. Fails: restore.failed.
 */
export function writeRecoverySettings(folder: string, target: RecoveryTarget, owner: FileOwner): void {
  const { lsn, isInclusive, timeline } = target
  const settings = {
    // Nobody gets in before it has recovered: ALTER SYSTEM would write the file anew without the marks, and
    // limits that the source raised later would stop the recovery.
    hot_standby: 'off',
    restore_command: 'false',
    archive_cleanup_command: '',
    recovery_end_command: CLEANUP,
    recovery_min_apply_delay: '0',
    // Whatever an earlier recovery of this cluster has left: two targets are an error.
    recovery_target: '',
    recovery_target_name: '',
    recovery_target_time: '',
    recovery_target_xid: '',
    recovery_target_lsn: formatLsn(lsn),
    recovery_target_inclusive: isInclusive ? 'on' : 'off',
    recovery_target_timeline: String(timeline),
    recovery_target_action: 'promote',
  }
  writeAutoConf(folder, readAutoConf(folder, RECOVERY_MARK), { mark: RECOVERY_MARK, settings }, owner)
  const signal = pathBytes(join(folder, 'recovery.signal'))
  try {
    writeFileSync(signal, '', { mode: 0o600 })
    if (owner !== undefined) chownSync(signal, owner.uid, owner.gid)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot begin the recovery in "${displayName(folder)}": ${describeError(error)}`
    throw new Failure('restore.failed', message, { cause: error })
  }
}

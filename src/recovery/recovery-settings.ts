/**
 * Tells a restored cluster how far to recover: settings at the end of postgresql.auto.conf, which the server
 * reads last, and the signal file that makes it read them (documentation, chapter "Recovery Target").
 */
import { appendFileSync, chownSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { formatLsn } from '../sources/postgres/lsn.ts'
import type { RecoveryTarget } from './cluster-log.ts'

/**
 * Not synced. `folder`: the data folder, raw. The log lies in pg_wal, where the server looks when the command
 * finds nothing. Fails: restore.failed.
 */
export function writeRecoverySettings(
  folder: string,
  target: RecoveryTarget,
  owner: { readonly uid: number; readonly gid: number } | undefined,
): void {
  const { lsn, isInclusive, timeline } = target
  const lines = [
    '',
    '# Written by backstock restore. Once the recovery has ended, this server heeds none of it; before a',
    '# standby is made of it, reset each: ALTER SYSTEM RESET recovery_target_lsn; …',
    "restore_command = 'false'",
    // Whatever an earlier recovery of this cluster has left: two targets are an error.
    "recovery_target = ''",
    "recovery_target_name = ''",
    "recovery_target_time = ''",
    "recovery_target_xid = ''",
    `recovery_target_lsn = '${formatLsn(lsn)}'`,
    `recovery_target_inclusive = '${isInclusive ? 'on' : 'off'}'`,
    `recovery_target_timeline = '${timeline}'`,
    "recovery_target_action = 'promote'",
    '',
  ]
  try {
    const settings = pathBytes(join(folder, 'postgresql.auto.conf'))
    const signal = pathBytes(join(folder, 'recovery.signal'))
    appendFileSync(settings, lines.join('\n'), { mode: 0o600 })
    writeFileSync(signal, '', { mode: 0o600 })
    if (owner === undefined) return
    for (const path of [settings, signal]) chownSync(path, owner.uid, owner.gid)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    const message = `Cannot write the settings for the recovery in "${displayName(folder)}"`
    throw new Failure('restore.failed', `${message}: ${describeError(error)}`, { cause: error })
  }
}

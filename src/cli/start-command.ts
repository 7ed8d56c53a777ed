/** The command that starts a restored PostgreSQL server, as it can be copied into a shell. */
import { existsSync, readFileSync } from 'node:fs'
import type { RestoredCluster } from '../recovery/restore-cluster.ts'
import { shellWord } from './shell-word.ts'

/** As a person would type it on this host. `own`: who types it; all that another than root restores is his. */
export function startCommand(
  { major, owner }: Pick<RestoredCluster, 'major' | 'owner'>,
  to: string,
  own = process.geteuid?.(),
): string {
  const debian = `/usr/lib/postgresql/${major}/bin/pg_ctl`
  const program = existsSync(debian) ? debian : 'pg_ctl'
  const as = own === 0 && owner.uid !== 0 ? asUser(owner) : ''
  return `${as}${program} start -D ${shellWord(to)}`
}

/** runuser takes names only, and whose files come from another host may have none here. */
function asUser({ uid, gid }: RestoredCluster['owner']): string {
  const name = userName(uid)
  if (name !== undefined) return `runuser -u ${shellWord(name)} -- `
  return `setpriv --reuid ${uid} --regid ${gid} --clear-groups `
}

function userName(uid: number): string | undefined {
  try {
    const lines = readFileSync('/etc/passwd', 'utf8').split('\n')
    return lines.find((line) => line.split(':')[2] === `${uid}`)?.split(':')[0]
  } catch {
    return undefined
  }
}

/** Which server programs, and which user, a snapshot is started with on this host. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../base/failure.ts'
import { programFolders } from '../sources/postgres/program-folders.ts'

export interface ServerUser {
  readonly uid: number
  readonly gid: number
}

const VERSION = /^postgres \(PostgreSQL\) (\d+)/
const PROGRAM_MS_MAX = 10_000
/** Who a server runs as where this process is root, the first that there is. */
const USERS = ['postgres', 'nobody']

/**
 * The folder of a `postgres` of that major version: the named one, else of PATH, else where packages put it.
 * Fails: host.unsupported.
 */
export function findServerFolder(
  major: number,
  { named, path }: { readonly named: string | undefined; readonly path: string },
): string {
  const folders = named === undefined ? [...path.split(':'), ...programFolders(major)] : [named]
  const others: string[] = []
  for (const folder of folders) {
    if (!folder.startsWith('/') || !existsSync(join(folder, 'postgres'))) continue
    const is = versionOf(join(folder, 'postgres'))
    if (is === major) return folder
    others.push(`${folder} has ${is === undefined ? 'one that does not run' : `version ${is}`}`)
  }
  const there = named !== undefined && others.length === 0 ? [`there is none in ${named}`] : others
  const is = there.length === 0 ? 'there is none on this host' : there.slice(0, 3).join(', ')
  throw new Failure(
    'host.unsupported',
    `Cannot start a server of version ${major}: no "postgres" of it was found (${is})`,
    { facts: { hint: `Install PostgreSQL ${major}, or name the folder of its programs: --postgres-bin.` } },
  )
}

/**
 * As root, which the server refuses to run as, another user; else undefined: this one. Fails:
 * host.unsupported.
 */
export function serverUser(): ServerUser | undefined {
  if (process.geteuid?.() !== 0) return undefined
  const user = findUser()
  if (user !== undefined) return user
  const must = `it must run as another user than root (${USERS.join(' or ')}, or run this as another user)`
  throw new Failure('host.unsupported', `Cannot start a server: ${must}`)
}

/** `postgres`, or `nobody`. */
export function findUser(): ServerUser | undefined {
  const lines = readFileSync('/etc/passwd', 'utf8').split('\n')
  const line = USERS.flatMap((name) => lines.find((each) => each.startsWith(`${name}:`)) ?? [])[0]
  const [, , uid, gid] = line?.split(':') ?? []
  return uid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) }
}

function versionOf(program: string): number | undefined {
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8', timeout: PROGRAM_MS_MAX })
  const parts = VERSION.exec(stdout)
  return parts === null ? undefined : Number(parts[1])
}

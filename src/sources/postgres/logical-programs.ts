/** Finds pg_dump on this host: the newest, since it reads servers of its own version and older ones. */
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, realpath } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describeError, Failure } from '../../base/failure.ts'
import { programFolders } from './program-folders.ts'

export interface DumpPrograms {
  readonly dump: string
  /** For roles and tablespaces; of the same version. */
  readonly dumpAll: string
  /** As `15.18`. */
  readonly version: string
}

export interface DumpWish {
  /** The pg_dump of the configuration; undefined: the newest that is found. */
  readonly named: string | undefined
  /** PATH */
  readonly path: string
  /** Of the server, before the first dot. */
  readonly major: number
}

interface Found {
  readonly program: string
  readonly version: string
}

const NAMES = { dump: 'pg_dump', dumpAll: 'pg_dumpall' } as const
const VERSION = /^pg_dump \(PostgreSQL\) (\S+)/
/** Versions that are looked for where packages put them; PATH and the configuration may name newer ones. */
const MAJORS = { min: 13, max: 30 } as const
const ANSWER_MS_MAX = 10_000

/** Fails: host.unsupported (none is there, or none new enough), host.file (the named one does not run). */
export async function findDumpPrograms({ named, path, major }: DumpWish): Promise<DumpPrograms> {
  const found = named === undefined ? await findAll(path) : [await ask(named)]
  const [best, ...others] = found.toSorted((a, b) => compareVersions(b.version, a.version))
  if (best === undefined) throw lacking(major, 'there is none in PATH or where packages put it')
  if (Number.parseInt(best.version) < major) {
    const older = others.length === 0 ? '' : ', the newest of several'
    throw lacking(major, `${best.program} is of version ${best.version}${older}`)
  }
  const dumpAll = join(dirname(best.program), NAMES.dumpAll)
  if (!(await isProgram(dumpAll))) throw lacking(major, `"${dumpAll}" is not beside it`)
  return { dump: best.program, dumpAll, version: best.version }
}

/** Programs that do not run are passed over. */
async function findAll(path: string): Promise<Found[]> {
  const majors = Array.from({ length: MAJORS.max - MAJORS.min + 1 }, (_, nth) => MAJORS.max - nth)
  const folders = [...majors.flatMap(programFolders), ...path.split(':')]
  const found = new Map<string, Found>()
  for (const folder of folders) {
    const program = join(folder, NAMES.dump)
    if (!folder.startsWith('/') || !(await isProgram(program))) continue
    const real = await realpath(program)
    if (found.has(real)) continue
    const answer = await ask(program).catch(() => undefined)
    if (answer !== undefined) found.set(real, answer)
  }
  return [...found.values()]
}

async function isProgram(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(
    () => true,
    () => false,
  )
}

async function ask(program: string): Promise<Found> {
  const said = await new Promise<string>((resolve, reject) => {
    execFile(program, ['--version'], { timeout: ANSWER_MS_MAX }, (error, stdout) => {
      if (error === null) resolve(stdout)
      else reject(unusable(program, describeError(error), error))
    })
  })
  const version = VERSION.exec(said)?.[1]
  if (version === undefined) throw unusable(program, 'it does not say that it is pg_dump')
  return { program, version }
}

function compareVersions(a: string, b: string): number {
  const [x, y] = [a, b].map((version) => version.split('.').map((part) => Number.parseInt(part)))
  return (x?.[0] ?? 0) - (y?.[0] ?? 0) || (x?.[1] ?? 0) - (y?.[1] ?? 0)
}

function unusable(program: string, is: string, cause?: unknown): Failure {
  return new Failure('host.file', `Cannot use "${program}" as pg_dump: ${is}`, { cause })
}

function lacking(major: number, is: string): Failure {
  const must = `the server is PostgreSQL ${major}, so it must be ${major} or newer`
  const hint = `Install postgresql-client-${major} or postgresql${major}, or name another with pgDump.`
  return new Failure('host.unsupported', `Cannot find a pg_dump: ${is} (${must})`, { facts: { hint } })
}

/**
 * The shape of backstock.yaml: what may be written there, and what the program gets. Not: reading files,
 * secrets, or where in a file an error lies (src/cli/config-file.ts).
 *
 * Every `error` and `description` here is shown to people. An error is the end of a sentence and begins with
 * "must". Unknown keys are errors: a misspelt `exclude` must not silently back up everything.
 */
import { z } from 'zod'
import { type ConfigProblem, configProblems } from './config-problems.ts'
import { cronProblem } from './cron.ts'
import {
  durationPattern,
  parseBytes,
  parseDuration,
  parseRate,
  ratePattern,
  sizePattern,
} from './quantity.ts'

/** The name of a source; also a part of object names in the repository (docs/format.md, section 1). */
export const sourceNamePattern = /^[a-z0-9][a-z0-9._-]{0,62}$/

const text = z
  .string()
  .min(1, 'must not be empty')
  // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
  .regex(/^[^\u0000-\u001f\u007f]*$/, 'must not hold line breaks or control characters')

const path = text.describe('A path; a relative one starts at the folder of this file.')

const sizeError = 'must be a size such as 512KiB, 10MiB or 4GB (KiB is 1024 bytes, kB is 1000)'
const size = z
  .union(
    [
      z.int(sizeError).nonnegative(sizeError),
      z
        .string()
        .regex(sizePattern, sizeError)
        .refine((value) => parseBytes(value) !== undefined, sizeError),
    ],
    { error: sizeError },
  )
  .transform((value) => (typeof value === 'number' ? value : (parseBytes(value) ?? 0)))

const rateError = 'must be a rate such as 512KiB/s or 10MiB/s'
const rate = z
  .string({ error: rateError })
  .regex(ratePattern, rateError)
  .refine((value) => parseRate(value) !== undefined, rateError)
  .transform((value) => parseRate(value) ?? 1)

const durationError = 'must be a duration such as 90s, 10m, 2h or 14d'
const durationSeconds = z
  .string({ error: durationError })
  .regex(durationPattern, durationError)
  .transform((value) => parseDuration(value) ?? 0)

const program = z.union([text, z.array(text).min(1)], {
  error: 'must be a command for the shell (text), or a list: the program and its arguments',
})

const secret = z
  .union(
    [
      z.strictObject({ file: path }),
      z.strictObject({ env: text }),
      z.strictObject({ command: program, timeout: durationSeconds.optional() }),
    ],
    { error: 'must be one of { file: PATH }, { env: NAME }, { command: [PROGRAM, …] }' },
  )
  .describe('Where a secret comes from. It never stands in this file itself.')

const hooks = z
  .strictObject({
    before: program.optional().describe('Runs before the source is read; if it fails, nothing is backed up.'),
    after: program.optional().describe('Runs after the snapshot is committed.'),
    onFailure: program.optional().describe('Runs when the backup of this source failed.'),
    timeout: durationSeconds.prefault('10m').describe('Ends a hook that takes longer.'),
  })
  .describe('Programs to run around the backup of one source.')

const pageSizes = [4096, 8192, 16_384, 32_768, 65_536]
const pages = z.strictObject({
  glob: text.describe('Which files, as a pattern below the source’s paths: **/*.ibd'),
  pageSize: size
    .refine((bytes) => pageSizes.includes(bytes), 'must be 4KiB, 8KiB, 16KiB, 32KiB or 64KiB')
    .describe('The database’s page size: 8KiB for PostgreSQL, 16KiB for InnoDB, 4KiB for SQLite.'),
})

const fileName = text.regex(/^[^/]+$/, 'must be the name of a file, without "/"')
const tags = z.array(text.regex(/^[^,\s]+$/, 'must be one word without commas')).default([])

const filesSource = z
  .strictObject({
    kind: z.literal('files'),
    paths: z.array(path).min(1, 'must name at least one path').describe('What to back up.'),
    exclude: z.array(text).default([]).describe('Patterns as in .gitignore; "!" takes back.'),
    excludeFiles: z
      .array(fileName)
      .default([])
      .describe('Names of files with further patterns, read in each folder: .backstockignore'),
    excludeFrom: z.array(path).default([]).describe('Files with further patterns, one a line.'),
    excludeIfPresent: z
      .array(fileName)
      .default([])
      .describe('Leaves out folders that hold a file of this name.'),
    excludeLargerThan: size.optional().describe('Leaves out files above this size.'),
    oneFileSystem: z.boolean().default(false).describe('Does not enter other file systems mounted below.'),
    cachedirTag: z.boolean().default(false).describe('Leaves out folders that hold a CACHEDIR.TAG.'),
    mountpoint: z.boolean().default(false).describe('Each path must be a mount point: is the disk there?'),
    sentinel: fileName
      .optional()
      .describe('The name of a file that each path must hold: .backstock-sentinel'),
    inode: z
      .enum(['use', 'ignore'])
      .default('use')
      .describe('"ignore" for file systems whose inode numbers change (NFS, FUSE).'),
    pages: z.array(pages).default([]).describe('Files to store by database pages.'),
    tags: tags.describe('Put on every snapshot of this source.'),
    hooks: hooks.optional(),
  })
  .describe('Files and folders.')

const postgresSource = z
  .strictObject({
    kind: z.literal('postgres'),
    url: z
      .string()
      .regex(/^postgres(ql)?:\/\//, 'must be a URL such as postgres://backup@db.example.org/postgres')
      .optional()
      .describe('The server: postgres://backup@db/postgres. What it leaves out, PG* variables say.'),
    password: secret.optional(),
    logs: z
      .enum(['none', 'stream', 'archive'])
      .default('none')
      .describe(
        '"stream": `backstock ship` keeps the log too, so that any moment can be restored. "archive": it ' +
          'takes what archive_command of the server hands over.',
      ),
    slot: z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/, 'must be 1 to 63 of a-z 0-9 _')
      .default('backstock')
      .describe('The replication slot by which the server keeps the log for us.'),
    mode: z
      .enum(['physical', 'logical'])
      .default('physical')
      .describe(
        '"logical": dumps by pg_dump, for servers that let nobody replicate. Full only, without a log.',
      ),
    pgDump: path.optional().describe('The pg_dump of mode "logical"; else the newest on this host.'),
    excludeDatabases: z.array(text).default([]).describe('What mode "logical" does not dump, by name.'),
    prefer: z
      .enum(['any', 'standby'])
      .default('any')
      .describe('"standby": of several hosts a standby is backed up, as long as one is close behind.'),
    checkpoint: z
      .enum(['fast', 'spread'])
      .default('spread')
      .describe('A backup begins with a checkpoint: at once, or paced by the server as its own are.'),
    rateLimit: rate.optional().describe('The most that the server sends: 50MiB/s'),
    tags: tags.describe('Put on every snapshot of this source.'),
    hooks: hooks.optional(),
  })
  .superRefine((value, context) => {
    const problem = modeProblem(value)
    if (problem !== undefined) context.addIssue({ code: 'custom', ...problem })
  })
  .describe('A PostgreSQL cluster, through its replication protocol or as dumps.')

/** The rule between `mode` and what only one of both does. */
function modeProblem(value: {
  mode: 'physical' | 'logical'
  logs: string
  rateLimit?: number | undefined
  pgDump?: string | undefined
  excludeDatabases: readonly string[]
}): { message: string; path: string[] } | undefined {
  if (value.mode === 'physical') {
    if (value.pgDump !== undefined)
      return {
        message: 'must go, or mode must be logical: a physical backup runs no pg_dump',
        path: ['pgDump'],
      }
    if (value.excludeDatabases.length > 0)
      return {
        message: 'must go, or mode must be logical: a physical backup is of the whole cluster',
        path: ['excludeDatabases'],
      }
    return undefined
  }
  if (value.logs !== 'none')
    return {
      message: 'must be none: mode logical has no log, so that nothing goes on from it',
      path: ['logs'],
    }
  if (value.rateLimit !== undefined)
    return { message: 'must go: pg_dump has no limit (mode logical)', path: ['rateLimit'] }
  return undefined
}

/**
 * Kinds whose settings are not fixed yet: known, so that one file can serve several versions; refused when
 * used.
 */
function futureSource<Kind extends string>(
  kind: Kind,
): z.ZodObject<{ kind: z.ZodLiteral<Kind> }, z.core.$loose> {
  return z.looseObject({ kind: z.literal(kind) }).describe('Known, not available in this version.')
}

const source = z.discriminatedUnion('kind', [
  filesSource,
  postgresSource,
  futureSource('mariadb'),
  futureSource('redis'),
  futureSource('sqlite'),
  futureSource('command'),
])

const storeError = 'must be a URL such as file:///var/backups/acme, or a path'
const repository = z
  .strictObject({
    store: text
      .refine(
        (value) => !/^[a-z][a-z0-9+.-]*:/i.test(value) || /^[a-z][a-z0-9+.-]*:\/\/./.test(value),
        storeError,
      )
      .describe('Where the repository lies: file:///var/backups/acme'),
    identity: path.optional().describe('The recovery kit that init wrote: reads and writes.'),
    writer: path.optional().describe('A credential that may only write (backstock key writer).'),
    passphrase: secret.optional().describe('Opens the identity file, if it is locked with a passphrase.'),
    spool: path
      .optional()
      .describe('Folder for log that is not in the repository yet: it must outlive restarts.'),
    cache: path.optional().describe('Folder for what can be read again from the repository.'),
    uploadLimit: rate.optional().describe('The most to send to the store: 10MiB/s'),
  })
  .superRefine((value, context) => {
    const problem = repositoryProblem(value)
    if (problem !== undefined) context.addIssue({ code: 'custom', ...problem })
  })

/** The rule between the keys of `repository`: one credential. */
function repositoryProblem(value: {
  identity?: string | undefined
  writer?: string | undefined
  passphrase?: unknown
}): { message: string; path: string[] } | undefined {
  if (value.identity === undefined && value.writer === undefined) {
    return {
      message: 'must name a credential: identity (reads and writes) or writer (only writes)',
      path: [],
    }
  }
  if (value.identity !== undefined && value.writer !== undefined) {
    return { message: 'must go: an identity is there already, and it may write too', path: ['writer'] }
  }
  if (value.writer !== undefined && value.passphrase !== undefined) {
    return { message: 'must go: only an identity is locked with a passphrase', path: ['passphrase'] }
  }
  return undefined
}

const cron = z
  .string({ error: 'must be a cron line in quotes: "0 2 * * *"' })
  .superRefine((value, context) => {
    const problem = cronProblem(value)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: problem })
  })
  .optional()

const count = z.int().min(1, 'must be 1 or more').max(100_000, 'must be 100000 or less').optional()

const schema = z.strictObject({
  shop: text.max(63, 'must have 63 characters or fewer').describe('The name of the shop.'),
  repository: repository.describe('Where backups go and what opens them.'),
  sources: z
    .record(
      z
        .string()
        .regex(sourceNamePattern, 'must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit'),
      source,
    )
    .refine((sources) => Object.keys(sources).length > 0, 'must hold at least one source')
    .describe('What is backed up, by name.'),
  schedule: z
    .strictObject({ full: cron, differential: cron, incremental: cron })
    .optional()
    .describe('When, as cron lines.'),
  retention: z
    .strictObject({
      keep: z
        .strictObject({
          last: count,
          hourly: count,
          daily: count,
          weekly: count,
          monthly: count,
          yearly: count,
        })
        .optional()
        .describe('How many snapshots to keep of each rhythm.'),
      pitr: durationSeconds.optional().describe('How far back every moment can be recovered.'),
    })
    .optional()
    .describe('What is kept, and for how long.'),
})

/** A checked configuration: defaults filled in, sizes in bytes, durations in seconds. */
export type Config = z.output<typeof schema>
export type FilesSourceConfig = z.output<typeof filesSource>
export type PostgresSourceConfig = z.output<typeof postgresSource>
/** Where a secret comes from. */
export type SecretConfig = z.output<typeof secret>
/** A command for the shell (text) or a program and its arguments. */
export type ProgramConfig = z.output<typeof program>

/** Checks plain data (as YAML or JSON gave it). Finds every problem, not only the first. */
export function parseConfig(data: unknown): { config: Config } | { problems: ConfigProblem[] } {
  const result = schema.safeParse(data)
  if (result.success) return { config: result.data }
  return { problems: configProblems(result.error.issues, data, jsonSchemaOfConfig()) }
}

/** The JSON Schema of backstock.yaml, for editors; committed as backstock.schema.json. */
export function jsonSchemaOfConfig(): z.core.JSONSchema.JSONSchema {
  const json = z.toJSONSchema(schema, { io: 'input', target: 'draft-2020-12' })
  const repositoryJson = json.properties?.['repository']
  if (typeof repositoryJson === 'object') {
    repositoryJson.oneOf = [{ required: ['identity'] }, { required: ['writer'] }]
  }
  return { title: 'Configuration of Backstock (backstock.yaml)', ...json }
}

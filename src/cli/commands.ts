/**
 * The table of commands: names, arguments, options, help. Data only: parsing, help and completion are made
 * from it, and the types of what a command receives are derived from it. The modules that do the work stand
 * in modules.ts.
 *
 * An option's key is its long name (`dryRun` is `--dry-run`).
 */

import type { ArgumentSpec, CommandSpec, OptionSpec } from './command-spec.ts'

const snapshotHelp = 'an id, its unique beginning or end, "latest", SOURCE:latest, or WRITER:SOURCE:latest'

export const commands = {
  init: {
    group: 'Set up',
    summary: 'create the repository and its recovery kit',
    description:
      'Creates the repository that the configuration names. Writes the identity file if it is absent ' +
      '(mode 0600) and prints the recovery kit: keep a copy of it away from this host.',
    arguments: {},
    options: {},
    examples: [['backstock init', 'create what ./backstock.yaml describes']],
  },
  'config check': {
    group: 'Set up',
    summary: 'check the configuration, all errors with their lines',
    arguments: {},
    options: {},
    examples: [['backstock --config acme.yaml config check', 'check a file before it is used']],
  },
  'config schema': {
    group: 'Set up',
    summary: 'print the JSON Schema of the configuration, for editors',
    arguments: {},
    options: {},
    examples: [['backstock config schema > backstock.schema.json', 'let the editor complete and check']],
    stopsWhenUnread: true,
  },
  'key list': {
    group: 'Set up',
    summary: 'list who may read and who may write',
    arguments: {},
    options: {},
    examples: [['backstock key list', 'recipients, writers and epochs']],
    stopsWhenUnread: true,
  },
  'key add': {
    group: 'Set up',
    summary: 'let another identity restore',
    arguments: { recipient: { help: 'its public half (age1…)', required: true } },
    options: { name: { value: 'NAME', help: 'what to call it' } },
    examples: [['backstock key add age1… --name office', 'a second way to open every backup']],
  },
  'key rotate': {
    group: 'Set up',
    summary: 'begin a new key epoch; what is stored stays as it is',
    arguments: {},
    options: {},
    examples: [['backstock key rotate', 'new backups are sealed to new keys']],
  },
  'key writer': {
    group: 'Set up',
    summary: 'make a credential that may write and not read',
    arguments: { name: { help: 'the host that will use it', required: true } },
    options: {
      out: { value: 'FILE', help: 'where to write the credential', required: true, complete: 'file' },
    },
    examples: [['backstock key writer web1 --out web1.json', 'then copy web1.json to that host']],
  },
  'key janitor': {
    group: 'Set up',
    summary: 'make a credential that may expire and not read contents',
    arguments: { name: { help: 'what to call it', required: true } },
    options: {
      out: { value: 'FILE', help: 'where to write the credential', required: true, complete: 'file' },
    },
    examples: [['backstock key janitor nightly --out janitor.age', 'for the host that cleans up']],
  },
  'key revoke': {
    group: 'Set up',
    summary: 'end a credential: nothing it writes later counts',
    arguments: { name: { help: 'as key list shows it', required: true } },
    options: {},
    examples: [['backstock key revoke web1', 'after a host was lost or broken into']],
  },
  backup: {
    group: 'Every day',
    summary: 'back up sources; all of them when none is named',
    description:
      'Each source gives one snapshot, a complete tree whatever its kind. Exit status 3: the snapshot ' +
      'is there, but some files could not be read; they are named. --stdin and --files-from take one name ' +
      'that the configuration does not have: their snapshots are no state of a configured source.',
    arguments: { sources: { help: 'names from the configuration', many: true, complete: 'source' } },
    options: {
      kind: {
        value: 'KIND',
        help: 'what to read and reuse',
        choices: ['auto', 'full', 'differential', 'incremental'],
        default: 'auto',
      },
      tag: { value: 'TAG', help: 'put on the snapshot; repeatable', many: true },
      dryRun: { short: 'n', help: 'say what would be stored, write nothing' },
      stdin: {
        help: 'back up what comes in on standard input, as one file, under a name of its own',
        conflicts: ['filesFrom', 'filesFrom0'],
      },
      stdinFilename: { value: 'NAME', help: 'the name of that file', default: 'stdin' },
      filesFrom: {
        value: 'FILE',
        help:
          'back up the paths in FILE, one a line, under a name of its own; - is stdin; repeatable, ' +
          'lists are joined',
        many: true,
        complete: 'file',
      },
      filesFrom0: {
        value: 'FILE',
        help: 'the same, paths ended by a zero byte; joined with those of --files-from',
        many: true,
        complete: 'file',
      },
      exclude: {
        short: 'e',
        value: 'PATTERN',
        help: 'leave out, besides what the configuration says',
        many: true,
      },
      allowEmpty: { help: 'store a source that has become empty' },
      uploadLimit: { value: 'RATE', type: 'rate', help: 'the most to send, such as 10MiB/s' },
      host: { value: 'NAME', help: 'the host name to write into the snapshot' },
    },
    examples: [
      ['backstock backup', 'every source of the configuration'],
      ['backstock backup media --kind full', 'one source, everything read again'],
      [
        'pg_dump orders | backstock backup dumps --stdin --stdin-filename orders.sql',
        'the output of a program',
      ],
    ],
  },
  ship: {
    group: 'Every day',
    summary: 'keep the logs of databases, until it is stopped',
    description:
      'Keeps the log of each database with `logs: stream` or `archive`, each second. Runs in the ' +
      'foreground, for a service manager; ends with status 0 when it is stopped (SIGTERM, SIGINT).',
    arguments: { sources: { help: 'names from the configuration', many: true, complete: 'source' } },
    options: {},
    examples: [['backstock ship orders', 'every moment of one database can be restored']],
  },
  status: {
    group: 'Every day',
    summary: 'how safe each source is: the last snapshots, what is late, what is wrong',
    arguments: { sources: { help: 'names from the configuration', many: true, complete: 'source' } },
    options: {},
    examples: [['backstock status --json', 'for monitoring']],
    stopsWhenUnread: true,
  },
  check: {
    group: 'Every day',
    summary: 'prove that what is stored can be restored',
    description:
      'Exit status 0 only when no finding is an error. With --boot the latest snapshot of each database, ' +
      'or of SOURCE, is restored into a scratch folder, started there and looked through.',
    arguments: {
      source: { help: 'a database to boot, or WRITER:SOURCE of several writers', complete: 'source' },
    },
    options: {
      readData: {
        value: 'PERCENT',
        type: 'percent',
        alone: 100,
        help: 'read stored data too; with =PERCENT another part each time',
      },
      noServer: { help: 'do not ask the servers of configured databases' },
      boot: { help: 'start databases from a scratch copy and look through it' },
      snapshot: { value: 'ID', help: 'boot this one, without the log behind it' },
      postgresBin: { value: 'FOLDER', help: 'where "postgres" of its version is', complete: 'folder' },
      scratch: { value: 'FOLDER', help: 'where copies are made and removed (TMPDIR)', complete: 'folder' },
      bootTimeout: { value: 'TIME', type: 'duration', help: 'for each database: 30m, 2h (6h)' },
    },
    examples: [
      ['backstock check', 'structure: snapshots, trees, indexes, packs'],
      ['backstock check --read-data=5', 'and a twentieth of the data'],
      ['backstock check --boot orders', 'and does the database start, and is it whole?'],
    ],
  },
  timeline: {
    group: 'Look inside',
    summary: 'what of a database can be restored: bases, log, gaps, what happened',
    description:
      'Shows what the log says of itself, without reading it: restore points, drops, deleted rows. ' +
      'The newest is last; --json gives all of it.',
    arguments: {
      source: { help: 'its name, or WRITER:SOURCE of several writers', required: true, complete: 'source' },
    },
    options: {
      from: { value: 'TIME', type: 'time', help: 'events since then: 2026-11-22T14:30 or with a zone' },
      to: { value: 'TIME', type: 'time', help: 'events until then' },
    },
    examples: [
      ['backstock timeline orders', 'from when to when, and what was dropped'],
      ['backstock timeline orders --from 2026-11-22T14:00 --json', 'every event since then'],
    ],
    stopsWhenUnread: true,
  },
  snapshots: {
    group: 'Look inside',
    summary: 'list snapshots, the newest last',
    arguments: { source: { help: 'only of this source, or WRITER:SOURCE', complete: 'source' } },
    options: {
      tag: { value: 'TAG', help: 'only with this tag; repeatable: with all of them', many: true },
      latest: { value: 'N', type: 'count', help: 'only the newest N of each source' },
    },
    examples: [['backstock snapshots media --latest 5', 'the newest five of one source']],
    stopsWhenUnread: true,
  },
  ls: {
    group: 'Look inside',
    summary: 'list a folder of a snapshot',
    arguments: {
      snapshot: { help: snapshotHelp, required: true, complete: 'source' },
      path: { help: 'a folder or file in it' },
    },
    options: {
      long: { short: 'l', help: 'mode, owner, size and time too' },
      recursive: { short: 'R', help: 'everything below' },
    },
    examples: [['backstock ls media:latest /srv/media -l', 'one folder as it was last backed up']],
    stopsWhenUnread: true,
  },
  cat: {
    group: 'Look inside',
    summary: 'print a file of a snapshot',
    arguments: {
      snapshot: { help: snapshotHelp, required: true, complete: 'source' },
      path: { help: 'a file in it', required: true },
    },
    options: {},
    examples: [['backstock cat media:latest /srv/media/price.csv > price.csv', 'one file, nothing else']],
    stopsWhenUnread: true,
  },
  find: {
    group: 'Look inside',
    summary: 'find files by name in snapshots',
    arguments: { patterns: { help: 'a glob: *.pdf, **/2026/*.csv', many: true, required: true } },
    options: {
      snapshot: { value: 'SNAPSHOT', help: 'only in this one; repeatable', many: true },
      source: {
        value: 'SOURCE',
        help: 'only in snapshots of this source; repeatable',
        many: true,
        complete: 'source',
      },
    },
    examples: [["backstock find 'invoice-*.pdf' --source media", 'in which snapshots is it?']],
    stopsWhenUnread: true,
  },
  diff: {
    group: 'Look inside',
    summary: 'what changed between two snapshots',
    arguments: {
      from: { help: snapshotHelp, required: true },
      to: { help: 'the later one', required: true },
    },
    options: {},
    examples: [['backstock diff 20261122t14 media:latest', 'added, removed and changed files']],
    stopsWhenUnread: true,
  },
  restore: {
    group: 'Bring back',
    summary: 'bring a source back, the latest snapshot if nothing else is said',
    description:
      'Files keep their absolute path below the folder. Refuses a folder that is not empty unless --delta ' +
      'or --overwrite is said. The same command resumes a restore that was cut off. Where several writers ' +
      'have the source, yours is meant; if it has none, name one: WRITER:SOURCE.',
    arguments: {
      source: { help: 'its name, or WRITER:SOURCE of several writers', required: true, complete: 'source' },
    },
    options: {
      to: { value: 'DIR', help: 'the folder to restore into', required: true, complete: 'folder' },
      snapshot: { value: 'SNAPSHOT', help: snapshotHelp, conflicts: ['at'] },
      at: { value: 'TIME', type: 'time', help: 'as it was then: 2026-11-22T14:30 or with a zone' },
      path: { value: 'GLOB', help: 'only what matches; repeatable', many: true },
      exclude: { short: 'e', value: 'GLOB', help: 'leave out what matches; repeatable', many: true },
      delta: {
        help: 'rewrite only what differs; files that are not in the snapshot stay',
        conflicts: ['overwrite'],
      },
      overwrite: { help: 'write over files that are there; others stay' },
      noOwner: { help: 'leave owners and groups to the running user' },
      dryRun: { short: 'n', help: 'say what would be written, write nothing' },
      lsn: { value: 'X', help: 'databases: up to this position' },
      before: { value: 'WHAT', help: "databases: up to before the latest 'DROP orders'" },
      beforeXid: { value: 'N', help: 'databases: up to before this transaction' },
      name: { value: 'P', help: 'databases: up to this restore point' },
      immediate: { help: 'databases: as soon as it is consistent' },
      exclusive: { help: 'databases: leave the named position out' },
      timeline: { value: 'N', help: 'databases: along this timeline' },
      keepSettings: { help: 'databases: archiving, standbys, primary and subscriptions stay as they were' },
      tablespaceMap: {
        value: 'OLD=NEW',
        help: 'databases: put a tablespace elsewhere; repeatable',
        many: true,
      },
    },
    examples: [
      ['backstock restore media --to /srv/restored', 'the latest snapshot'],
      [
        "backstock restore media --to / --path '/srv/media/logos/**' --delta",
        'one folder, back in its place',
      ],
      ['backstock restore media --to /tmp/before --at 2026-11-22T14:30', 'as it was then'],
    ],
  },
  export: {
    group: 'Bring back',
    summary: 'write a snapshot in a form that needs no Backstock',
    description:
      'A PostgreSQL cluster as a folder, its data folder in data/, or as the tars of pg_basebackup -Ft: ' +
      'pg_verifybackup accepts both. Files as one tar. With --to - any tree as one tar on standard ' +
      'output. The folder must be empty; nothing half-written stays in it.',
    arguments: { snapshot: { help: snapshotHelp, required: true, complete: 'source' } },
    options: {
      to: { value: 'DIR', help: 'the folder; - is standard output', required: true, complete: 'folder' },
      format: { value: 'FORMAT', help: 'the form', choices: ['plain', 'tar'], default: 'plain' },
      tablespaceMap: {
        value: 'OLD=NEW',
        help: 'put a tablespace elsewhere than below the folder; repeatable',
        many: true,
      },
      noOwner: { help: 'leave owners and groups to the running user' },
    },
    examples: [
      ['backstock export orders:latest --to /srv/orders', 'a data folder in /srv/orders/data'],
      ['backstock export orders:latest --to /srv/tars --format tar', 'the tars of pg_basebackup'],
      ['backstock export media:latest --to - --format tar | ssh nas tar -x', 'files, over a line'],
    ],
  },
  demo: {
    group: 'More',
    summary: 'see it work: a small shop is backed up, broken and restored',
    arguments: {},
    options: {
      dir: { value: 'DIR', help: 'where; a temporary folder if not said', complete: 'folder' },
      keep: { help: 'leave everything in place afterwards' },
      scale: { value: 'FACTOR', help: 'size of the shop; 1 is about 120 MiB', default: '1', hidden: true },
    },
    examples: [['backstock demo', 'takes a minute, touches nothing else']],
  },
  completion: {
    group: 'More',
    summary: 'print the completion script of a shell',
    arguments: { shell: { help: 'bash, zsh or fish', choices: ['bash', 'zsh', 'fish'] } },
    options: { sources: { help: 'print the names of the sources', hidden: true } },
    examples: [
      ['source <(backstock completion bash)', 'in ~/.bashrc'],
      ['backstock completion zsh > "${fpath[1]}/_backstock"', 'once, for zsh'],
      ['backstock completion fish > ~/.config/fish/completions/backstock.fish', 'once, for fish'],
    ],
    stopsWhenUnread: true,
  },
} as const satisfies Record<string, CommandSpec>

export type CommandName = keyof typeof commands

/** Summaries of the commands that only hold others. */
export const commandGroups: Readonly<Record<string, string>> = {
  key: 'credentials: who may read, who may write',
  config: 'the configuration file: check it, describe it',
}

/** Options that every command takes. */
export const globalOptions = {
  config: {
    short: 'c',
    value: 'FILE',
    help: 'the configuration; else ./backstock.yaml, /etc/backstock/backstock.yaml',
    complete: 'file',
  },
  json: { help: 'events as NDJSON on standard output' },
  quiet: { short: 'q', help: 'results and errors only' },
  verbose: { short: 'v', help: 'more about what happens and why' },
  noColor: { help: 'no colours (also: NO_COLOR)' },
  localTime: { help: 'times in this host’s zone instead of UTC' },
} as const satisfies Readonly<Record<string, OptionSpec>>

type ValueOf<O extends OptionSpec> = O extends { readonly choices: readonly (infer C)[] }
  ? C
  : O extends { readonly type: 'rate' | 'time' | 'count' | 'percent' | 'duration' }
    ? number
    : O extends { readonly value: string }
      ? string
      : boolean

type OptionOf<O extends OptionSpec> = O extends { readonly many: true }
  ? ValueOf<O>[]
  : O extends { readonly required: true } | { readonly default: string }
    ? ValueOf<O>
    : O extends { readonly value: string }
      ? ValueOf<O> | undefined
      : boolean

type ArgumentOf<A extends ArgumentSpec> = A extends { readonly many: true }
  ? string[]
  : A extends { readonly choices: readonly (infer C)[] }
    ? C | undefined
    : A extends { readonly required: true }
      ? string
      : string | undefined

/** What the module of command `N` receives: its arguments and options, checked and converted. */
export type InputOf<N extends CommandName> = {
  readonly [
    A in keyof (typeof commands)[N]['arguments']
  ]: (typeof commands)[N]['arguments'][A] extends ArgumentSpec
    ? ArgumentOf<(typeof commands)[N]['arguments'][A]>
    : never
} & {
  readonly [O in keyof (typeof commands)[N]['options']]: (typeof commands)[N]['options'][O] extends OptionSpec
    ? OptionOf<(typeof commands)[N]['options'][O]>
    : never
}

/** The key of an option as it is typed: `dryRun` is `--dry-run`. */
export function optionFlag(key: string): string {
  return `--${key.replace(/([a-z])([A-Z])/g, '$1-$2').toLowerCase()}`
}

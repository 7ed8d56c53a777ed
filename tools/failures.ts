/**
 * Writes the pages of the guide that repeat the table of failures: docs/guide/failures.md and
 * docs/guide/exit-codes.md. A test holds the committed pages to what this makes.
 * Run: `node tools/failures.ts` after a change of src/base/failure.ts or src/cli/exit-codes.ts.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FAILURES } from '../src/base/failure.ts'
import { EXITS } from '../src/cli/exit-codes.ts'

const MADE = '<!-- Made by `node tools/failures.ts` from base/failure.ts and cli/exit-codes.ts in src/. -->'

const AREAS: Readonly<Record<string, string>> = {
  usage: 'Command line',
  config: 'Configuration',
  cancelled: 'Cancelled',
  host: 'This host',
  storage: 'The store',
  repo: 'The repository',
  key: 'Keys',
  source: 'The source',
  restore: 'The restore',
}

const SUMMARY_RULE = [
  'A run with `--json` says how it ended with one `summary` event, the last one. Of a run that failed as a',
  'whole, such as a restore that was refused, it comes behind the `error` event and is',
  '`{"type":"summary","command":…,"code":…,"message":…,"exit":…}`; no other summary has a `code`. Only',
  'where the command line cannot be understood it has no `command`. Commands whose output is no list of',
  'events (`cat`, `completion`, `config schema`) write a summary only if they fail.',
].join('\n')

/** docs/guide/failures.md */
export function failuresPage(): string {
  const sections = Object.entries(AREAS).map(([area, title]) => {
    const rows = Object.entries(FAILURES)
      .filter(([code]) => code.split('.')[0] === area)
      .map(([code, { exit, hint }]) => `| \`${code}\` | ${exit} | ${hint} |`)
    return [`## ${title}`, '', '| code | exit | what to do |', '|---|---|---|', ...rows].join('\n')
  })
  const head = [
    '# Failures',
    MADE,
    [
      'A failure has a code that does not change between versions. With `--json` the event is',
      '`{"type":"error","code":…,"message":…,"hint":…,"exit":…,"facts":{…}}`; on a terminal the message',
      'comes first and what to do below it. The message says what was tried on what, what is, and what must',
      'be. Better advice than the one here may stand there.',
    ].join('\n'),
    SUMMARY_RULE,
    [
      'What a check finds is no failure but a finding: [check](check.md).',
      'Exit statuses by number: [exit codes](exit-codes.md).',
    ].join('\n'),
  ]
  return `${[...head, ...sections].join('\n\n')}\n`
}

/** docs/guide/exit-codes.md */
export function exitCodesPage(): string {
  const rows = Object.entries(EXITS).map(([exit, meaning]) => {
    const codes = Object.entries(FAILURES)
      .filter(([, failure]) => failure.exit === Number(exit))
      .map(([code]) => `\`${code}\``)
    return `| ${exit} | ${meaning} | ${codes.join(', ')} |`
  })
  return [
    '# Exit codes',
    '',
    MADE,
    '',
    'The numbers to 12 and 130 mean what they mean for restic; those from 20 to 27 are our own.',
    'What each code asks you to do: [failures](failures.md).',
    '',
    '| status | meaning | failures |',
    '|---|---|---|',
    ...rows,
    '',
    'When several sources are backed up, one that fails does not keep the others from theirs.',
    'The status is the worst: a failure counts more than a 3.',
    '',
  ].join('\n')
}

/** Codes whose area or exit status the pages do not know. */
export function unexplained(): string[] {
  return Object.entries(FAILURES)
    .filter(([code, { exit }]) => !(exit in EXITS) || !((code.split('.')[0] ?? '') in AREAS))
    .map(([code]) => code)
}

if (import.meta.main) {
  const guide = join(import.meta.dirname, '../docs/guide')
  writeFileSync(join(guide, 'failures.md'), failuresPage())
  writeFileSync(join(guide, 'exit-codes.md'), exitCodesPage())
}

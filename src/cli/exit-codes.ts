/** What each exit status means to whoever runs the command: for the help and for docs/guide/exit-codes.md. */

/** In the order of the page; names of commands in backticks. */
export const EXITS: Readonly<Record<number, string>> = {
  0: 'done. `check`: no finding is an error',
  1:
    'failed otherwise. `check`, `status`: a finding is an error. `restore`: something is missing and ' +
    'named. `find`: nothing was found',
  3: 'the snapshot is there, but some of the source could not be read, or changed while it was read',
  10: 'there is no repository',
  11: 'another run of this source is under way on this host',
  12: 'the key does not fit, or may not do this',
  20: 'the command line or the configuration is wrong; nothing was done',
  21: 'the store is full',
  22:
    'the store cannot be used: not reachable, not writable, not allowed, no answer. ' +
    '`check`, `restore`: some objects could not be read, and no damage is known',
  23: 'the repository is damaged, or somebody changed it',
  24: 'the source cannot be backed up; there is no new snapshot',
  25: 'the restore was refused; nothing was written',
  26: 'the repository is of another format version',
  27: 'a hook failed',
  130: 'cancelled by Ctrl-C or a signal',
}

const LINE_CHARS_MAX = 78

/** The table as lines for a terminal. */
export function exitCodesText(): string {
  const rows = Object.entries(EXITS).map(([exit, meaning]) => {
    const lines: string[] = []
    for (const word of meaning.replaceAll('`', '').split(' ')) {
      const last = lines.at(-1)
      if (last === undefined || last.length + word.length + 8 > LINE_CHARS_MAX) lines.push(word)
      else lines[lines.length - 1] = `${last} ${word}`
    }
    return `  ${exit.padStart(3)}  ${lines.join(`\n${' '.repeat(7)}`)}`
  })
  return `Exit codes:\n${rows.join('\n')}\n`
}

/** Words for a POSIX shell. */

/** As it is where that is safe, else in quotes. */
export function quoteShell(word: string): string {
  return /^[\w/.:=-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`
}

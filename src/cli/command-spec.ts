/** What the table of commands (commands.ts) may say of a command, its arguments and its options. */

export interface OptionSpec {
  readonly help: string
  /** Name of the value in the help; without it the option is a switch. */
  readonly value?: string
  /**
   * How the value is read; text if not said. A time is milliseconds, a rate bytes a second, a duration
   * seconds.
   */
  readonly type?: 'text' | 'rate' | 'time' | 'count' | 'percent' | 'duration'
  /** The value when the option stands alone: `--read-data` or `--read-data=10`. */
  readonly alone?: number
  readonly choices?: readonly string[]
  readonly default?: string
  /** May be given several times. */
  readonly many?: boolean
  readonly required?: boolean
  readonly short?: string
  /** Keys of options that cannot stand together with this one. */
  readonly conflicts?: readonly string[]
  readonly hidden?: boolean
  /** What completion offers; `file` is the shell's own. */
  readonly complete?: 'source' | 'file' | 'folder'
}

export interface ArgumentSpec {
  readonly help: string
  readonly many?: boolean
  readonly required?: boolean
  readonly choices?: readonly string[]
  readonly complete?: 'source' | 'file'
}

export interface CommandSpec {
  readonly group: string
  readonly summary: string
  /** More than the summary, below the usage. */
  readonly description?: string
  readonly arguments: Readonly<Record<string, ArgumentSpec>>
  readonly options: Readonly<Record<string, OptionSpec>>
  readonly examples: readonly (readonly [command: string, meaning: string])[]
  /** Its product is what it prints: it ends quietly when nobody reads on (`| head`). */
  readonly stopsWhenUnread?: boolean
}

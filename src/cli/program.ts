/**
 * Turns the table of commands into a commander program, and a command line into a request. Not: running it.
 * Wrong usage becomes a Failure (usage.invalid); help and version become text for stdout.
 */
import { Argument, Command, CommanderError, Option } from 'commander'
import { Failure } from '../base/failure.ts'
import { parseDuration, parseRate } from '../protocol/quantity.ts'
import type { ArgumentSpec, CommandSpec, OptionSpec } from './command-spec.ts'
import { type CommandName, commandGroups, commands, globalOptions, optionFlag } from './commands.ts'
import { exitCodesText } from './exit-codes.ts'

/** Options of every command, as given. */
export interface GlobalOptions {
  readonly config?: string
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: boolean
  readonly color: boolean
  readonly localTime: boolean
}

export type Request =
  | { readonly kind: 'help'; readonly text: string }
  | {
      readonly kind: 'run'
      readonly name: CommandName
      readonly globals: GlobalOptions
      readonly input: Input
    }

/** Arguments and options of one command under the keys of its row. Typed as InputOf<name> by the table. */
export type Input = Readonly<Record<string, unknown>>

/** Of a time limit. */
const DURATION_SECONDS_MAX = 7 * 24 * 3600
const firstSteps = `
First steps:
  backstock demo                         see it work, on a shop that is made up
  backstock init                         create what backstock.yaml describes
  backstock backup                       back up every source
  backstock snapshots                    what there is
  backstock restore media --to /tmp/m    bring a source back

${exitCodesText().trimEnd()}`

/** Reads a command line (without the program's own name). Fails: usage.invalid. */
export async function parseCommandLine(argv: readonly string[], version: string): Promise<Request> {
  if (asksExitCodes(argv)) return { kind: 'help', text: exitCodesText() }
  let request: Request | undefined
  let text = ''
  const program = buildProgram(version, {
    run: (found) => (request = found),
    write: (part) => (text += part),
  })
  try {
    await program.parseAsync(withoutVainHelp(program, argv), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode !== 0) throw usageFailure(error, argv)
    return { kind: 'help', text }
  }
  return request ?? { kind: 'help', text }
}

/**
 * `help COMMAND` as `COMMAND --help`. Of an unknown command no help is asked, or commander would not refuse
 * it.
 */
function withoutVainHelp(program: Command, argv: readonly string[]): string[] {
  let words = [...argv]
  while (words[commandAt(words)] === 'help') words = words.toSpliced(commandAt(words), 1)
  if (words.length < argv.length) words.push('--help')
  const plain = words.filter((word) => word !== '--help' && word !== '-h')
  return namesCommand(program, plain) ? words : plain
}

function asksExitCodes(argv: readonly string[]): boolean {
  const at = commandAt(argv)
  if (argv[at] !== 'help') return false
  const rest = argv.toSpliced(at, 1)
  return rest[commandAt(rest)] === 'exit-codes'
}

/** Where the command stands: past global options and what they take. */
function commandAt(words: readonly string[]): number {
  let at = 0
  for (let word = words[at]; word?.startsWith('-') === true && word !== '--'; word = words[at])
    at += takesWord(word) ? 2 : 1
  return at
}

function takesWord(word: string): boolean {
  return Object.entries<OptionSpec>(globalOptions).some(
    ([key, { short, value }]) => value !== undefined && (word === optionFlag(key) || word === `-${short}`),
  )
}

/** Whether the words, past global options, begin with a command or a group, or name none at all. */
function namesCommand(program: Command, words: readonly string[]): boolean {
  let group = program
  let rest = [...words]
  for (;;) {
    const { operands, unknown } = group.parseOptions(rest)
    const [name, ...others] = operands
    if (name === undefined) return true
    const found = group.commands.find((command) => command.name() === name)
    if (found === undefined) return false
    if (found.commands.length === 0) return true
    group = found
    rest = [...others, ...unknown]
  }
}

interface Sinks {
  readonly run: (request: Request) => void
  readonly write: (text: string) => void
}

function buildProgram(version: string, sinks: Sinks): Command {
  const program = new Command('backstock')
  program
    .description('Backup and recovery for online shops: databases and files, proven by restores.')
    .usage('[options] COMMAND')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'explain a command')
    .helpCommand(false)
    .addHelpText('after', firstSteps)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ writeOut: sinks.write, writeErr: () => undefined, outputError: () => undefined })
    .configureHelp({ subcommandTerm })
  for (const [key, spec] of Object.entries(globalOptions)) program.addOption(newOption(key, spec))
  for (const [name, spec] of Object.entries(commands)) addCommand(program, name, spec, sinks)
  return program
}

function addCommand(program: Command, name: string, spec: CommandSpec, sinks: Sinks): void {
  const [first = name, second] = name.split(' ')
  const command = second === undefined ? program.command(name) : groupOf(program, first, spec).command(second)
  command.summary(spec.summary).helpGroup(second === undefined ? `${spec.group}:` : 'Commands:')
  command.description(
    [sentenceOf(spec.summary), spec.description ?? ''].filter((part) => part !== '').join('\n'),
  )
  for (const [key, argument] of Object.entries(spec.arguments))
    command.addArgument(newArgument(key, argument))
  for (const [key, option] of Object.entries(spec.options)) command.addOption(newOption(key, option))
  for (const [key, option] of Object.entries<OptionSpec>(globalOptions)) {
    command.addOption(newOption(key, option).helpGroup('Global options:'))
  }
  command.addHelpText('after', examplesText(spec))
  command.allowExcessArguments(false)
  command.action(() => {
    const globals = globalsOf(command)
    sinks.run({ kind: 'run', name: name as CommandName, globals, input: inputOf(command, spec) })
  })
}

function groupOf(program: Command, name: string, spec: CommandSpec): Command {
  const found = program.commands.find((command) => command.name() === name)
  if (found !== undefined) return found
  const group = program.command(name).enablePositionalOptions().helpGroup(`${spec.group}:`)
  group.summary(commandGroups[name] ?? '').description(sentenceOf(commandGroups[name] ?? ''))
  for (const [key, option] of Object.entries<OptionSpec>(globalOptions)) {
    group.addOption(newOption(key, option).hideHelp())
  }
  return group
}

/** `ls <snapshot> [path]`: that there are options goes without saying. */
function subcommandTerm(command: Command): string {
  const words = command.registeredArguments.map((one) => {
    const name = one.variadic ? `${one.name()}...` : one.name()
    return one.required ? `<${name}>` : `[${name}]`
  })
  return [command.name(), ...words].join(' ')
}

function sentenceOf(summary: string): string {
  return `${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`
}

function examplesText(spec: CommandSpec): string {
  const lines = spec.examples.map(([command, meaning]) => `  ${command}\n      ${meaning}`)
  const examples = lines.length === 0 ? '' : `\nExamples:\n${lines.join('\n')}\n`
  return `${examples}\nExit codes: 0 is done, \`backstock help exit-codes\` explains the others.`
}

function newOption(key: string, spec: OptionSpec): Option {
  const value =
    spec.value === undefined ? '' : spec.alone === undefined ? ` <${spec.value}>` : ` [${spec.value}]`
  const option = new Option(
    `${spec.short === undefined ? '' : `-${spec.short}, `}${optionFlag(key)}${value}`,
    spec.help,
  )
  if (spec.choices !== undefined) option.choices(spec.choices)
  else if (spec.value !== undefined) {
    option.argParser((text: string, before: unknown) => {
      const read = readValue(key, spec, text)
      return spec.many === true ? [...(Array.isArray(before) ? before : []), read] : read
    })
  }
  if (spec.alone !== undefined) option.preset(String(spec.alone))
  if (spec.default !== undefined) option.default(spec.default)
  if (spec.required === true) option.makeOptionMandatory()
  if (spec.conflicts !== undefined) option.conflicts([...spec.conflicts])
  if (spec.hidden === true) option.hideHelp()
  return option
}

function newArgument(key: string, spec: ArgumentSpec): Argument {
  const name = spec.many === true ? `${key.replace(/s$/, '')}...` : key
  const argument = new Argument(spec.required === true ? `<${name}>` : `[${name}]`, spec.help)
  if (spec.choices !== undefined) argument.choices(spec.choices)
  else {
    argument.argParser((text: string, before: unknown) => {
      // A variable of a script that is not set: "nothing said" would mean another thing.
      if (text === '') throw usage(`Cannot use "" as ${argument.name()}: it must be ${spec.help}`)
      return spec.many === true ? [...(Array.isArray(before) ? before : []), text] : text
    })
  }
  return argument
}

/** The value of an option by its type. Fails: usage.invalid. */
function readValue(key: string, spec: OptionSpec, text: string): string | number {
  const must: Record<string, [number | undefined, string]> = {
    rate: [parseRate(text), 'a rate such as 512KiB/s or 10MiB/s'],
    time: [parseMoment(text), 'a time such as 2026-11-22T14:30 or 2026-11-22T14:30:00Z'],
    count: [/^[1-9]\d{0,8}$/.test(text) ? Number(text) : undefined, 'a whole number from 1'],
    percent: [parsePercent(text), 'a percentage above 0 and up to 100'],
    duration: [parseTimeLimit(text), 'a duration such as 90s, 30m or 2h, of a week at most'],
  }
  const row = must[spec.type ?? 'text']
  if (row === undefined) {
    if (text === '') throw usage(`Cannot use ${optionFlag(key)} "": it must be ${spec.value} (${spec.help})`)
    return text
  }
  const [value, what] = row
  if (value === undefined)
    throw usage(`Cannot use ${optionFlag(key)} ${JSON.stringify(text)}: it must be ${what}`)
  return value
}

function parseTimeLimit(text: string): number | undefined {
  const seconds = parseDuration(text)
  return seconds !== undefined && seconds > 0 && seconds <= DURATION_SECONDS_MAX ? seconds : undefined
}

function parsePercent(text: string): number | undefined {
  if (!/^\d{1,3}(\.\d{1,6})?%?$/.test(text)) return undefined
  const value = Number.parseFloat(text)
  return value > 0 && value <= 100 ? value : undefined
}

/**
 * Milliseconds, of which a number holds microseconds exactly, of an ISO 8601 time; without a zone it is this
 * host's time. A day alone is its first moment.
 */
function parseMoment(text: string): number | undefined {
  const iso = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.(\d{1,6}))?)?)(Z|[+-]\d\d:\d\d)?)?$/.exec(text)
  if (iso === null) return undefined
  const milliseconds = Date.parse(`${iso[1]}T${iso[2] ?? '00:00'}${iso[4] ?? ''}`)
  // Date.parse passes over what is below a millisecond.
  const micros = Number((iso[3] ?? '').slice(3).padEnd(3, '0'))
  // Date.parse takes 31 February for 3 March.
  const day = Date.parse(`${iso[1]}T00:00Z`)
  const real = !Number.isNaN(day) && new Date(day).toISOString().startsWith(iso[1] ?? '-')
  return Number.isNaN(milliseconds) || !real ? undefined : milliseconds + micros / 1000
}

function inputOf(command: Command, spec: CommandSpec): Input {
  const input: Record<string, unknown> = {}
  for (const [at, key] of Object.keys(spec.arguments).entries()) input[key] = command.processedArgs[at]
  const options: Record<string, unknown> = command.opts()
  for (const [key, option] of Object.entries(spec.options)) input[key] = optionValue(key, option, options)
  return input
}

function optionValue(key: string, spec: OptionSpec, given: Record<string, unknown>): unknown {
  // commander turns --no-owner into `owner: false`, and --files-from0 into filesFrom0 by itself.
  const negated = /^no([A-Z])(.*)$/.exec(key)
  if (negated !== null) return given[`${(negated[1] ?? '').toLowerCase()}${negated[2] ?? ''}`] === false
  const value = given[key]
  if (value === undefined && spec.many === true) return []
  if (value === undefined && spec.value === undefined) return false
  return value
}

/** Global options may stand before or after the command; the last word wins. */
function globalsOf(command: Command): GlobalOptions {
  const given: Record<string, unknown> = {}
  for (let at: Command | null = command; at !== null; at = at.parent) {
    for (const [key, value] of Object.entries<unknown>(at.opts())) {
      if (at.getOptionValueSource(key) === 'cli' && !(key in given)) given[key] = value
    }
  }
  return {
    ...(typeof given['config'] === 'string' ? { config: given['config'] } : {}),
    json: given['json'] === true,
    quiet: given['quiet'] === true,
    verbose: given['verbose'] === true,
    color: given['color'] !== false,
    localTime: given['localTime'] === true,
  }
}

/** commander's words as our sentence: "error: unknown option '--x'\n(Did you mean --y?)". */
function usageFailure(error: CommanderError, argv: readonly string[]): Failure {
  const name = Object.keys({ ...commands, ...commandGroups })
    .filter((one) => argv.join(' ').startsWith(one))
    .sort((one, other) => other.length - one.length)[0]
  const hint = `Run \`backstock ${name === undefined ? '' : `${name} `}--help\` to see what it takes.`
  if (error.code === 'commander.help') {
    const group = argv.find((word) => word in commandGroups)
    const known = Object.keys(commands).filter((one) => one.startsWith(`${group ?? ''} `))
    const words = known.map((one) => one.split(' ')[1])
    return group === undefined
      ? usage('Cannot run backstock: it needs a command', `${hint} \`backstock demo\` shows it at work.`)
      : usage(`Cannot run "${group}": it needs one of ${words.join(', ')}`, hint)
  }
  const text = error.message
    .replace(/^error: /, '')
    .replace(/\.?\n\(Did you mean (.*)\?\)$/, ' (did you mean $1?)')
  return usage(`Cannot understand the command line: ${text.replace(/\n/g, ' ')}`, hint)
}

function usage(message: string, hint?: string): Failure {
  return new Failure('usage.invalid', message, { facts: { hint } })
}

/** Completion scripts for bash, zsh and fish, made from the table of commands. Pure. */
import type { ArgumentSpec, CommandSpec, OptionSpec } from './command-spec.ts'
import { commandGroups, commands, globalOptions, optionFlag } from './commands.ts'

export type Shell = 'bash' | 'zsh' | 'fish'

/** The script; it defines functions and asks `backstock completion --sources` for names while typing. */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bashScript()
    case 'zsh':
      return zshScript()
    case 'fish':
      return fishScript()
  }
}

const specs: readonly (readonly [name: string, spec: CommandSpec])[] = Object.entries(commands)

/** First words of command lines with their summaries: `backup`, `key`. */
function firstWords(): [string, string][] {
  const words = new Map<string, string>()
  for (const [name, spec] of specs) {
    const first = name.split(' ')[0] ?? name
    words.set(first, commandGroups[first] ?? spec.summary)
  }
  return [...words]
}

const helpWord = ['help', 'explain a command'] as const

/** What `help` takes. */
function helpTopics(): [string, string][] {
  return [...firstWords(), ['exit-codes', 'what each exit status means']]
}

function secondWords(group: string): [string, string][] {
  return specs
    .filter(([name]) => name.startsWith(`${group} `))
    .map(([name, spec]) => [name.slice(group.length + 1), spec.summary])
}

function optionsOf(spec: CommandSpec): [string, OptionSpec][] {
  return Object.entries<OptionSpec>({ ...spec.options, ...globalOptions }).filter(
    ([, one]) => one.hidden !== true,
  )
}

/** Flags as they are typed, short ones first. */
function flagsOf([key, spec]: [string, OptionSpec]): string[] {
  return spec.short === undefined ? [optionFlag(key)] : [`-${spec.short}`, optionFlag(key)]
}

/** `--read-data[=PERCENT]` takes no word of its own. */
function takesWord(spec: OptionSpec): boolean {
  return spec.value !== undefined && spec.alone === undefined
}

/** What may stand where a value or an argument is typed. */
type Offer = { readonly words: readonly string[] } | 'source' | 'file' | 'folder' | 'nothing'

function offerOf(spec: OptionSpec | ArgumentSpec): Offer {
  if (spec.choices !== undefined) return { words: spec.choices }
  return spec.complete ?? 'nothing'
}

/** Arguments of a command are offered alike, wherever they stand. */
function argumentOffer(spec: CommandSpec): Offer {
  const offers = Object.values<ArgumentSpec>(spec.arguments).map(offerOf)
  return offers.find((offer) => offer !== 'nothing') ?? 'nothing'
}

const bashHead = `# bash completion of backstock; made by: backstock completion bash
_backstock_sources() {
  local at config=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    case "\${COMP_WORDS[at]}" in -c|--config) config=(--config "\${COMP_WORDS[at + 1]}") ;; esac
  done
  "\${COMP_WORDS[0]}" "\${config[@]}" completion --sources 2>/dev/null
}

_backstock() {
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD - 1]}" command= at
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    case "\${COMP_WORDS[at]}" in
      -c|--config) ((at++)) ;;
      -*) ;;
      *)
        command="\${COMP_WORDS[at]}"
        case "$command" in
          ${Object.keys(commandGroups).join('|')})
            if ((at + 1 < COMP_CWORD)); then command+=" \${COMP_WORDS[at + 1]}"; fi ;;
        esac
        break ;;
    esac
  done
`

function bashScript(): string {
  const lines = [bashHead, '  case "$command:$before" in']
  const values = new Map<string, string[]>()
  const add = (pattern: string, offer: Offer): void => {
    const reply = bashReply(offer)
    values.set(reply, [...(values.get(reply) ?? []), pattern])
  }
  for (const option of Object.entries<OptionSpec>(globalOptions)) {
    if (takesWord(option[1])) for (const flag of flagsOf(option)) add(`*:${flag}`, offerOf(option[1]))
  }
  for (const [name, spec] of specs) {
    for (const option of Object.entries(spec.options)) {
      if (takesWord(option[1]))
        for (const flag of flagsOf(option)) add(`"${name}":${flag}`, offerOf(option[1]))
    }
  }
  for (const [reply, patterns] of values) lines.push(`    ${patterns.join('|')}) ${reply}; return ;;`)
  lines.push('  esac', '  case "$command" in')
  lines.push(`    '') ${bashWords([...firstWords().map(([word]) => word), 'help', ...globalFlags()])} ;;`)
  lines.push(`    help) ${bashWords(helpTopics().map(([word]) => word))} ;;`)
  for (const group of Object.keys(commandGroups)) {
    lines.push(`    ${group}) ${bashWords(secondWords(group).map(([word]) => word))} ;;`)
  }
  for (const [name, spec] of specs) {
    const flags = optionsOf(spec).flatMap(flagsOf)
    lines.push(`    "${name}")`)
    lines.push(
      `      if [[ "$word" == -* ]]; then ${bashWords(flags)}; else ${bashReply(argumentOffer(spec))}; fi ;;`,
    )
  }
  lines.push('  esac', '}', '', 'complete -F _backstock backstock', '')
  return lines.join('\n')
}

function globalFlags(): string[] {
  return ['--help', '--version', ...Object.entries<OptionSpec>(globalOptions).flatMap(flagsOf)]
}

function bashWords(words: readonly string[]): string {
  return `mapfile -t COMPREPLY < <(compgen -W '${words.join(' ')}' -- "$word")`
}

function bashReply(offer: Offer): string {
  if (typeof offer === 'object') return bashWords(offer.words)
  switch (offer) {
    case 'source':
      return 'mapfile -t COMPREPLY < <(compgen -W "$(_backstock_sources)" -- "$word")'
    case 'file':
      return 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
    case 'folder':
      return 'mapfile -t COMPREPLY < <(compgen -d -- "$word")'
    case 'nothing':
      return ':'
  }
}

function zshScript(): string {
  const lines = [
    '#compdef backstock',
    '# zsh completion of backstock; made by: backstock completion zsh',
    '_backstock_sources() {',
    '  local -a names',
    '  local at=${words[(I)(-c|--config)]}',
    '  ((at > 0)) && config=(--config ${words[at + 1]})',
    '  names=(${(f)"$(_call_program sources backstock $config completion --sources 2>/dev/null)"})',
    '  _describe -t sources source names',
    '}',
    '',
    '_backstock() {',
    '  local context state line name file',
    '  local -a config',
    '  typeset -A opt_args',
    // -A: options behind the command are the command's.
    `  _arguments -A '-*' -C ${zshOptions(Object.entries(globalOptions))} '1: :->command' '*:: :->rest'`,
    '  file=${opt_args[--config]:-$opt_args[-c]}',
    '  [[ -n $file ]] && config=(--config $file)',
    '  case $state in',
    `    command) local -a list; list=(${zshPairs([...firstWords(), helpWord])})`,
    '      _describe command list; return ;;',
    '  esac',
    '  name=$words[1]',
    '  case $name in',
    `    help) local -a list; list=(${zshPairs(helpTopics())}); _describe command list; return ;;`,
  ]
  for (const group of Object.keys(commandGroups)) {
    const list = zshPairs(secondWords(group))
    lines.push(`    ${group})`)
    lines.push(
      `      if ((CURRENT == 2)); then local -a list; list=(${list}); _describe command list; return; fi`,
    )
    lines.push('      name="$name $words[2]"; shift words; ((CURRENT--)) ;;')
  }
  lines.push('  esac', '  case $name in')
  for (const [name, spec] of specs) {
    const argument = zshAction(argumentOffer(spec))
    lines.push(`    "${name}") _arguments ${zshOptions(optionsOf(spec))} '*:argument:${argument}' ;;`)
  }
  lines.push(
    '  esac',
    '}',
    '',
    'if [ "$funcstack[1]" = "_backstock" ]; then _backstock "$@"; else compdef _backstock backstock; fi',
    '',
  )
  return lines.join('\n')
}

function zshPairs(words: readonly (readonly [string, string])[]): string {
  return words.map(([word, summary]) => quote(`${word}:${summary}`)).join(' ')
}

function zshOptions(options: readonly [string, OptionSpec][]): string {
  return options
    .flatMap((option) =>
      flagsOf(option).map((flag) => {
        const [, spec] = option
        const help = spec.help.replace(/[[\]:]/g, (char) => `\\${char}`)
        const value = takesWord(spec) ? `:${spec.value ?? ''}:${zshAction(offerOf(spec))}` : ''
        return quote(`${spec.many === true ? '*' : ''}${flag}[${help}]${value}`)
      }),
    )
    .join(' ')
}

function zshAction(offer: Offer): string {
  if (typeof offer === 'object') return `(${offer.words.join(' ')})`
  return { source: '_backstock_sources', file: '_files', folder: '_files -/', nothing: ' ' }[offer]
}

const fishHead = String.raw`# fish completion of backstock; made by: backstock completion fish
function __backstock_sources
  set -l words (commandline -opc)
  set -l config
  for at in (seq (count $words))
    if contains -- $words[$at] -c --config; set config --config $words[(math $at + 1)]; end
  end
  backstock $config completion --sources 2>/dev/null
end

# Whether the words before the cursor name this command.
function __backstock_is
  set -l words (commandline -opc)
  set -e words[1]
  set -l command
  set -l skip no
  for word in $words
    if test $skip = yes; set skip no; continue; end
    switch $word
      case -c --config; set skip yes
      case '-*'
      case '*'
        set -a command $word
        if not contains -- $command[1] GROUPS; or test (count $command) = 2; break; end
    end
  end
  test "$command" = "$argv"
end
complete -c backstock -f`.replace('GROUPS', Object.keys(commandGroups).join(' '))

function fishScript(): string {
  const lines = [fishHead]
  const offerWords = (command: string, words: readonly (readonly [string, string])[]): void => {
    for (const [word, summary] of words)
      lines.push(`complete -c backstock -n ${fishIs(command)} -a ${word} -d ${quote(summary)}`)
  }
  offerWords('', [...firstWords(), helpWord])
  offerWords('help', helpTopics())
  for (const option of Object.entries<OptionSpec>(globalOptions))
    lines.push(`complete -c backstock ${fishOption(option)}`)
  for (const group of Object.keys(commandGroups)) offerWords(group, secondWords(group))
  for (const [name, spec] of specs) {
    for (const option of Object.entries(spec.options)) {
      if (option[1].hidden !== true)
        lines.push(`complete -c backstock -n ${fishIs(name)} ${fishOption(option)}`)
    }
    const offer = fishOffer(argumentOffer(spec))
    if (offer !== '') lines.push(`complete -c backstock -n ${fishIs(name)} ${offer}`)
  }
  return `${lines.join('\n')}\n`
}

/** The condition that the command is this one; '' is none yet. */
function fishIs(command: string): string {
  return quote(`__backstock_is ${command}`.trimEnd())
}

function fishOption([key, spec]: [string, OptionSpec]): string {
  const short = spec.short === undefined ? '' : `-s ${spec.short} `
  const offer = offerOf(spec)
  // -x: nothing but what is offered; fish offers files beside it otherwise.
  const value = takesWord(spec) ? ` ${offer === 'file' ? '-r' : '-x'} ${fishOffer(offer)}`.trimEnd() : ''
  return `${short}-l ${optionFlag(key).slice(2)}${value} -d ${quote(spec.help)}`
}

function fishOffer(offer: Offer): string {
  if (typeof offer === 'object') return `-a ${quote(offer.words.join(' '))}`
  return {
    source: "-a '(__backstock_sources)'",
    file: '-F',
    folder: "-a '(__fish_complete_directories)'",
    nothing: '',
  }[offer]
}

/** One word of a shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

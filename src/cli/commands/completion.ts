/** `backstock completion`: the script of a shell, and what the scripts ask for while somebody types. */
import { Failure, isFailure } from '../../base/failure.ts'
import type { InputOf } from '../commands.ts'
import { completionScript } from '../completion.ts'
import type { CommandContext } from '../context.ts'
import { writeText } from '../print.ts'

export async function run(context: CommandContext, input: InputOf<'completion'>): Promise<number> {
  if (input.sources) {
    for (const name of await sourceNames(context)) writeText(context.printer, `${name}\n`)
    return 0
  }
  if (input.shell === undefined) {
    throw new Failure('usage.invalid', 'Cannot print a completion script: it needs bash, zsh or fish')
  }
  writeText(context.printer, completionScript(input.shell))
  return 0
}

/** Quiet: an unsound configuration offers nothing, and a message in the middle of typing helps nobody. */
async function sourceNames(context: CommandContext): Promise<string[]> {
  const { loadConfigFile } = await import('../config-file.ts')
  try {
    const { config } = await loadConfigFile(context.configFile, context.cwd)
    return Object.keys(config.sources)
  } catch (error) {
    if (isFailure(error)) return []
    throw error
  }
}

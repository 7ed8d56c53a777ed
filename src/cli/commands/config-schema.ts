/** `backstock config schema`: the JSON Schema of the configuration. */
import { jsonSchemaOfConfig } from '../../protocol/config.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { writeText } from '../print.ts'

/** The schema is JSON already: it is the same with --json. */
export async function run(context: CommandContext, _input: InputOf<'config schema'>): Promise<number> {
  writeText(context.printer, `${JSON.stringify(jsonSchemaOfConfig(), null, 2)}\n`)
  return 0
}

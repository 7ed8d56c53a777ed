/** `backstock key writer`: a credential for a host that may write and not read. */
import { resolve } from 'node:path'
import { addWriter } from '../../repo/key-changes.ts'
import { writeKitFile } from '../../repo/key-files.ts'
import { formatWriter } from '../../repo/kit.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withOwner } from '../owner.ts'
import { note, printSummary } from '../print.ts'

export async function run(context: CommandContext, input: InputOf<'key writer'>): Promise<number> {
  const { printer, cwd } = context
  const file = resolve(cwd, input.out)
  const { open, writer } = await withOwner(context, ({ owner }) =>
    addWriter(owner, input.name, (made) => writeKitFile(file, formatWriter(made))),
  )
  const facts = {
    command: 'key writer',
    name: input.name,
    domain: writer.domain,
    file,
    config: open.config.n,
  }
  const line = `The credential of "${input.name}" is in ${file} (mode 0600).`
  printSummary(printer, { type: 'summary', ...facts }, [line])
  note(
    printer,
    'Move it to its host and name it there as repository.writer. It can back up; it cannot restore.',
  )
  return 0
}

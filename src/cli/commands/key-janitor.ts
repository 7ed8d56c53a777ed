/** `backstock key janitor`: an identity that sees what is referenced and no contents. */
import { resolve } from 'node:path'
import { addRecipient } from '../../repo/key-changes.ts'
import { writeKitFile } from '../../repo/key-files.ts'
import { formatKit, newIdentity } from '../../repo/kit.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withOwner } from '../owner.ts'
import { printSummary } from '../print.ts'

export async function run(context: CommandContext, input: InputOf<'key janitor'>): Promise<number> {
  const { printer, cwd } = context
  const file = resolve(cwd, input.out)
  const { name } = input
  const { open, recipient } = await withOwner(context, async ({ owner, kit }) => {
    const identity = newIdentity(kit.repository, kit.authority)
    // The file first: no registered janitor lacks it.
    await writeKitFile(file, formatKit(identity))
    const age = identity.recipient
    return { open: await addRecipient(owner, { age, name, role: 'janitor' }), recipient: age }
  })
  const facts = { command: 'key janitor', name, recipient, file, config: open.config.n }
  printSummary(printer, { type: 'summary', ...facts }, [
    `The identity of janitor "${name}" is in ${file} (mode 0600).`,
  ])
  return 0
}

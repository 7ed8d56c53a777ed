/** `backstock key add`: lets another identity restore everything. */
import { addRecipient } from '../../repo/key-changes.ts'
import { recipientId } from '../../format/config.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withOwner } from '../owner.ts'
import { note, printSummary } from '../print.ts'

export async function run(context: CommandContext, input: InputOf<'key add'>): Promise<number> {
  const { recipient } = input
  const name = input.name ?? `restorer ${recipient.slice(0, 12)}`
  const { open } = await withOwner(context, async ({ owner }) => ({
    open: await addRecipient(owner, { age: recipient, name, role: 'restorer' }),
  }))
  const { repository, authority } = open.config
  const event = { command: 'key add', id: recipientId(recipient), name, recipient, config: open.config.n }
  printSummary(context.printer, { type: 'summary', ...event }, [`"${name}" may read every backup now.`])
  note(context.printer, 'Its identity file needs these lines, to know the repository and whom to believe:')
  for (const line of [`# repository: ${repository}`, `# authority: ${authority}`]) note(context.printer, line)
  return 0
}

/** `backstock key list`: who may read and who may write; nothing secret. */
import { listKeys } from '../../repo/key-changes.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withRepository } from '../open-repository.ts'
import { printEvent, printLine, printSummary, printTable } from '../print.ts'

export async function run(context: CommandContext, _input: InputOf<'key list'>): Promise<number> {
  return withRepository(context, ({ access }) => {
    const { printer } = context
    const { recipients, writers, authority, config } = listKeys(access.config)
    for (const { id, name, role, age } of recipients)
      printEvent(printer, { type: 'key', kind: 'recipient', id, name, role, recipient: age })
    for (const { domain, name, revoked, epoch, epochs } of writers)
      printEvent(printer, {
        type: 'key',
        kind: 'writer',
        domain,
        name,
        role: 'writer',
        revoked,
        epoch,
        epochs,
      })
    printTable(
      printer,
      [{ title: 'READS' }, { title: 'ROLE' }, { title: 'ID' }, { title: 'RECIPIENT', flexible: true }],
      recipients.map(({ name, role, id, age }) => [name, role, id, age]),
    )
    printLine(printer)
    printTable(
      printer,
      [{ title: 'WRITES' }, { title: 'DOMAIN' }, { title: 'EPOCH', align: 'right' }, { title: 'STATE' }],
      writers.map(({ name, domain, epoch, revoked }) => [
        name,
        domain,
        String(epoch),
        revoked === null ? 'active' : `revoked ${revoked}`,
      ]),
    )
    const summary = { type: 'summary', command: 'key list', config, authority } as const
    printSummary(printer, { ...summary, role: access.role }, ['', `This credential: ${access.role}`])
    return Promise.resolve(0)
  })
}

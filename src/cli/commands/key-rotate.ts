/** `backstock key rotate`: new epoch keys for every active writer; what is stored stays as it is. */
import { listKeys, rotateEpoch } from '../../repo/key-changes.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withOwner } from '../owner.ts'
import { note, printLine, printSummary } from '../print.ts'

export async function run(context: CommandContext, _input: InputOf<'key rotate'>): Promise<number> {
  const { printer } = context
  const { open } = await withOwner(context, async ({ owner, access }) => {
    let latest = { config: access.config, sha256: access.configSha256 }
    for (const { domain, revoked } of listKeys(access.config).writers) {
      if (revoked === null) latest = await rotateEpoch(owner, domain)
    }
    return { open: latest }
  })
  const writers = listKeys(open.config).writers.filter(({ revoked }) => revoked === null)
  for (const { name, epoch } of writers) printLine(printer, `${name}: epoch ${epoch}`)
  note(
    printer,
    'Older backups stay open to whoever could open them before; a new full holds nothing of theirs.',
  )
  const event = { type: 'summary', command: 'key rotate', config: open.config.n, writers } as const
  printSummary(printer, event, [])
  return 0
}

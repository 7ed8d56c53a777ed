/** `backstock key revoke`: ends a writer, or takes a reader from the list. */
import { Failure } from '../../base/failure.ts'
import { addOwnWriter, listKeys, removeRecipient, revokeWriter } from '../../repo/key-changes.ts'
import { ownDomains } from '../../repo/keys.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withOwner, type OwnedRepository } from '../owner.ts'
import { note, printSummary } from '../print.ts'
import type { OpenConfig } from '../../repo/configs.ts'

interface Revoked {
  readonly open: OpenConfig
  readonly kind: 'writer' | 'recipient'
  readonly id: string
  readonly notes: readonly string[]
}

export async function run(context: CommandContext, input: InputOf<'key revoke'>): Promise<number> {
  const { printer } = context
  const { name } = input
  const { open, kind, id, notes } = await withOwner(context, (repository) => revoke(repository, name))
  for (const text of notes) note(printer, text)
  const event = { type: 'summary', command: 'key revoke', name, kind, id, config: open.config.n } as const
  printSummary(printer, event, [`"${name}" is revoked.`])
  return 0
}

async function revoke(repository: OwnedRepository, name: string): Promise<Revoked> {
  const { owner, access } = repository
  const { writers, recipients } = listKeys(access.config)
  const ofWriter = writers.filter((one) => one.revoked === null && (one.name === name || one.domain === name))
  const ofRecipient = recipients.filter((one) => one.name === name || one.id === name)
  const [writer] = ofWriter
  const [recipient] = ofRecipient
  if (ofWriter.length + ofRecipient.length > 1) {
    const ids = [...ofWriter.map(({ domain }) => domain), ...ofRecipient.map(({ id }) => id)].join(', ')
    throw new Failure('usage.invalid', `Cannot revoke "${name}": several bear that name (say which: ${ids})`)
  }
  if (writer !== undefined) return revokeOneWriter(repository, writer)
  if (recipient === undefined) {
    const known = [...writers.filter((one) => one.revoked === null), ...recipients]
    const names = known.map((one) => `"${one.name}"`).join(', ')
    throw new Failure(
      'usage.invalid',
      `Cannot revoke "${name}": no active key bears that name (known: ${names})`,
    )
  }
  const { open } = await removeRecipient(owner, recipient.id)
  const rest = 'What was stored before stays open to it: make a full backup, and expire the old ones.'
  return { open, kind: 'recipient', id: recipient.id, notes: [rest] }
}

/** The kit must always be able to write: its own revoked domain is followed by a new one. */
async function revokeOneWriter(
  { owner, access }: OwnedRepository,
  { domain, name }: { readonly domain: string; readonly name: string },
): Promise<Revoked> {
  const isOwn = ownDomains(access).some((one) => one.id === domain)
  const open = await revokeWriter(owner, domain)
  if (!isOwn) return { open, kind: 'writer', id: domain, notes: ['What it wrote until now stays readable.'] }
  const again = await addOwnWriter({ ...owner, known: { n: open.config.n, sha256: open.sha256 } }, name)
  const notes = [
    'That was the writer of this recovery kit: it has a new domain, which begins with a full backup.',
  ]
  return { open: again, kind: 'writer', id: domain, notes }
}

/** What the commands that change keys share: only the recovery kit may. */
import { Failure } from '../base/failure.ts'
import type { OpenConfig } from '../repo/configs.ts'
import type { Owner } from '../repo/key-changes.ts'
import type { Kit } from '../repo/kit.ts'
import type { CommandContext } from './context.ts'
import { type OpenedRepository, rememberConfig, withRepository } from './open-repository.ts'

export interface OwnedRepository extends OpenedRepository {
  readonly owner: Owner
  readonly kit: Kit
}

/** Runs `change` with the recovery kit and remembers the config it made. Fails: key.role, and as `change`. */
export async function withOwner<T extends { readonly open: OpenConfig }>(
  context: CommandContext,
  change: (repository: OwnedRepository) => Promise<T>,
): Promise<T> {
  return withRepository(context, async (repository) => {
    const { access, store, host } = repository
    const { credential, config, configSha256, role } = access
    if (credential.type === 'writer' || credential.authoritySeed === undefined) {
      throw new Failure('key.role', `Cannot change keys: this credential is a ${role}'s`, {
        facts: { role, hint: 'Use the recovery kit, which holds the authority key.' },
      })
    }
    const known = { n: config.n, sha256: configSha256 }
    const owner: Owner = { store, kit: credential, clock: context.clock, known }
    const changed = await change({ ...repository, owner, kit: credential })
    rememberConfig(host, changed.open)
    return changed
  })
}

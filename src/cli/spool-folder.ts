/** Where the log of a source waits on this host, and how its server hands it over (`logs: archive`). */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { inboxPath } from '../sources/postgres/archive-inbox.ts'
import { archiveCommand } from '../sources/postgres/archive-command.ts'
import type { LoadedConfig } from './config-file.ts'
import type { CommandContext } from './context.ts'

/** The same in a clone and in what is published. */
const ARCHIVE_CLIENT = fileURLToPath(new URL('../../bin/backstock-archive', import.meta.url))

export interface SpoolOwner {
  readonly repository: string
  readonly source: string
}

/** The folder of one source in repository.spool, or in the state folder of the user. */
export function spoolFolder(
  context: CommandContext,
  loaded: LoadedConfig,
  { repository, source }: SpoolOwner,
): string {
  return join(spoolRoot(context, loaded), repository, source)
}

/** The archive_command of the server whose spool is in `folder`. */
export function archiveCommandFor(folder: string): string {
  return archiveCommand(ARCHIVE_CLIENT, inboxPath(folder))
}

function spoolRoot(context: CommandContext, loaded: LoadedConfig): string {
  const named = loaded.config.repository.spool
  if (named !== undefined) return named
  if (process.getuid?.() === 0) return '/var/lib/backstock/spool'
  const home = context.env['XDG_STATE_HOME'] ?? ''
  const state = home === '' ? join(context.env['HOME'] ?? homedir(), '.local', 'state') : home
  return join(state, 'backstock', 'spool')
}

/** Where each command of commands.ts is done. Loaded only when it runs, so that `--help` stays quick. */
import type { CommandName } from './commands.ts'
import type { CommandModule } from './context.ts'

export const commandModules: { readonly [N in CommandName]?: () => Promise<CommandModule<N>> } = {
  init: () => import('./commands/init.ts'),
  backup: () => import('./commands/backup.ts'),
  ship: () => import('./commands/ship.ts'),
  timeline: () => import('./commands/timeline.ts'),
  snapshots: () => import('./commands/snapshots.ts'),
  ls: () => import('./commands/ls.ts'),
  cat: () => import('./commands/cat.ts'),
  find: () => import('./commands/find.ts'),
  diff: () => import('./commands/diff.ts'),
  restore: () => import('./commands/restore.ts'),
  export: () => import('./commands/export.ts'),
  check: () => import('./commands/check.ts'),
  status: () => import('./commands/status.ts'),
  'key list': () => import('./commands/key-list.ts'),
  'key add': () => import('./commands/key-add.ts'),
  'key rotate': () => import('./commands/key-rotate.ts'),
  'key writer': () => import('./commands/key-writer.ts'),
  'key janitor': () => import('./commands/key-janitor.ts'),
  'key revoke': () => import('./commands/key-revoke.ts'),
  'config check': () => import('./commands/config-check.ts'),
  'config schema': () => import('./commands/config-schema.ts'),
  demo: () => import('./commands/demo.ts'),
  completion: () => import('./commands/completion.ts'),
}

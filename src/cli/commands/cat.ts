/** `backstock cat`: the bytes of a file and nothing else, also with --json. */
import { displayName } from '../../base/file-entry.ts'
import { Failure } from '../../base/failure.ts'
import { closeSnapshot, readFile } from '../../repo/tree-reader.ts'
import { chooseSnapshot } from '../choose-snapshot.ts'
import type { InputOf } from '../commands.ts'
import type { CommandContext } from '../context.ts'
import { withRepository } from '../open-repository.ts'
import { findTyped } from '../paths.ts'
import { writeBytes } from '../print.ts'
import { openShown } from '../rebuilt.ts'

export async function run(context: CommandContext, input: InputOf<'cat'>): Promise<number> {
  return withRepository(context, async (repository) => {
    const snapshot = await chooseSnapshot(context, repository, input.snapshot)
    const reader = await openShown(context.printer, repository, snapshot)
    try {
      const { path, entry } = await findTyped(reader, input.path)
      if (entry?.type !== 'file') {
        const is = `it is a ${entry?.type ?? 'directory'} (it must be a file)`
        throw new Failure('usage.invalid', `Cannot print "${displayName(path)}": ${is}`)
      }
      for await (const bytes of readFile(reader, entry)) {
        await writeBytes(context.printer, bytes, context.signal)
      }
      return 0
    } finally {
      closeSnapshot(reader)
    }
  })
}

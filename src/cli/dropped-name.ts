/** What `restore --before` names, in the words of the statement. */
import { Failure } from '../base/failure.ts'

/**
 * The name in `DROP TABLE public."o'r der"`, in quotes where it has them: matchesName() reads it. Fails:
 * usage.invalid.
 */
export function droppedName(text: string): string {
  const parts = /^(?:drop|truncate)\s+(?:table\s+|database\s+)?(?<name>\S.*)$/is.exec(text.trim())
  const name = parts?.groups?.['name']
  if (name !== undefined) return name
  const must = `it must be 'DROP NAME' or 'TRUNCATE NAME', with a NAME as SQL has it`
  throw new Failure('usage.invalid', `Cannot use --before ${JSON.stringify(text)}: ${must}`)
}

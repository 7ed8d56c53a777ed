/** The archive_command by which a server hands its log to an inbox. */
import { quoteShell } from '../../base/shell.ts'

/** PostgreSQL puts in for %p and %f what it hands over; %% is a percent sign. */
export function archiveCommand(client: string, inbox: string): string {
  const words = [client, inbox].map((word) => quoteShell(word).replaceAll('%', '%%'))
  return `${words.join(' ')} %p %f`
}

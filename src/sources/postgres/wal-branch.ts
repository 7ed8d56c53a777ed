/** What a timeline of a cluster, and its history, are called where logs are stored (format.md, section 9). */
const TIMELINE_DIGITS = 8

interface Logged {
  readonly log?: { readonly branch: string } | undefined
}

/** `<system identifier>-<timeline, 8 hex digits>` */
export function walBranch(systemId: string, timeline: number): string {
  return `${systemId}-${timeline.toString(16).padStart(TIMELINE_DIGITS, '0')}`
}

/** undefined if it is no such branch. */
export function parseWalBranch(branch: string): { systemId: string; timeline: number } | undefined {
  const parts = /^(\d{1,20})-([0-9a-f]{8})$/.exec(branch)
  return parts === null ? undefined : { systemId: parts[1]!, timeline: Number.parseInt(parts[2]!, 16) }
}

/** Of the cluster that a snapshot is of; undefined: its source has no log. */
export function systemIdOf({ log }: Logged): string | undefined {
  return log && parseWalBranch(log.branch)?.systemId
}

/** The name of a timeline's history among the files of its branch. */
export function historyFile(timeline: number): string {
  return `${timeline.toString(16).padStart(TIMELINE_DIGITS, '0')}.history`
}

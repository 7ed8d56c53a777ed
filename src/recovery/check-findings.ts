/**
 * What a check finds: data, never exceptions. One row of FINDINGS is one code with its severity; each is
 * raised by a test. Lists are bounded; what is left out is counted. Not here: how anything is found.
 */
import { displayName } from '../base/file-entry.ts'
import type { Failure } from '../base/failure.ts'
import { isUnreadable } from '../repo/damage.ts'

export type Severity = 'error' | 'warning' | 'info'

/**
 * `error`: something is lost, or someone lies. `warning`: nothing is lost yet. `info`: good to know.
 * Codes begin with the kind of object they are about.
 */
export const FINDINGS = {
  'config.missing': 'error',
  'config.corrupt': 'error',
  'bundle.missing': 'error',
  'bundle.corrupt': 'error',
  'snapshot.corrupt': 'error',
  'snapshot.forged': 'error',
  'snapshot.foreign': 'error',
  'snapshot.newer': 'error',
  'snapshot.revoked': 'error',
  'snapshot.rule': 'error',
  'snapshot.parent': 'info',
  'stream.hidden': 'error',
  'stream.fork': 'error',
  'stream.race': 'info',
  'stream.previous': 'error',
  'stream.gap': 'info',
  'clock.backward': 'warning',
  'clock.future': 'warning',
  'run.missing': 'error',
  'run.corrupt': 'error',
  'run.unlisted': 'info',
  'pack.missing': 'error',
  'pack.size': 'error',
  'pack.corrupt': 'error',
  'pack.foreign': 'error',
  'pack.newer': 'error',
  'pack.index': 'error',
  'pack.unlisted': 'info',
  'set.lost': 'error',
  'tree.lost': 'error',
  'file.corrupt': 'error',
  'refs.corrupt': 'error',
  'refs.lacking': 'error',
  'refs.surplus': 'warning',
  'log.gap': 'error',
  'log.hidden': 'error',
  'log.conflict': 'error',
  'log.overlap': 'info',
  'log.corrupt': 'error',
  'log.forged': 'error',
  'log.foreign': 'error',
  'log.newer': 'error',
  'log.revoked': 'error',
  'log.lacking': 'error',
  'log.broken': 'error',
  'log.ended': 'warning',
  'log.none': 'info',
  'object.unreadable': 'error',
  'boot.failed': 'error',
  'boot.page': 'error',
  'boot.database': 'error',
  'boot.table': 'error',
  'boot.index': 'error',
  'boot.visibility': 'error',
  'boot.invalid': 'warning',
  'boot.collation': 'warning',
  'session.open': 'info',
  'object.unknown': 'warning',
  'not-checked': 'info',
} as const satisfies Record<string, Severity>

export type FindingCode = keyof typeof FINDINGS

/** A file that a finding hurts; with `below`, the directory and all that is in it. */
export interface HurtFile {
  readonly snapshot: string
  /** Absolute, for people (displayName()). */
  readonly path: string
  readonly below: boolean
}

export interface Finding {
  readonly code: FindingCode
  severity: Severity
  message: string
  /** Name of the object in the store. */
  readonly object: string | undefined
  /** Ids of the snapshots it hurts. */
  readonly snapshots: string[]
  /** The first HURT_FILES_MAX of them, by snapshot and path. */
  readonly files: HurtFile[]
  /** How many there are: `files` may hold fewer. */
  fileCount: number
}

/** Findings of one code that are kept; more are counted. */
const FINDINGS_MAX = 1000
const HURT_FILES_MAX = 1000

export interface Findings {
  readonly list: Finding[]
  readonly counts: Map<FindingCode, number>
}

export function newFindings(): Findings {
  return { list: [], counts: new Map() }
}

/** Adds a finding, or only counts it when there are too many of its code. The one returned may be added to. */
export function addFinding(
  findings: Findings,
  code: FindingCode,
  message: string,
  of: { object?: string; snapshots?: readonly string[]; severity?: Severity } = {},
): Finding {
  const count = (findings.counts.get(code) ?? 0) + 1
  findings.counts.set(code, count)
  const finding: Finding = {
    code,
    severity: of.severity ?? FINDINGS[code],
    message,
    object: of.object,
    snapshots: [...(of.snapshots ?? [])],
    files: [],
    fileCount: 0,
  }
  if (count <= FINDINGS_MAX) findings.list.push(finding)
  return finding
}

/**
 * Adds the finding that a failed read makes: `code` with what it costs, or, when the store could not hand the
 * object out, `object.unreadable`: that says nothing about what is stored.
 */
export function addUnreadFinding(
  findings: Findings,
  code: FindingCode,
  failure: Failure | { readonly message: string; readonly unreadable: boolean },
  of: { object: string; snapshots?: readonly string[]; costs?: string },
): Finding {
  const { costs, ...rest } = of
  const { message } = failure
  if ('unreadable' in failure ? failure.unreadable : isUnreadable(failure)) {
    const is = 'it is not known to be damaged, and not known to be whole'
    return addFinding(findings, 'object.unreadable', `${message}; ${is}`, rest)
  }
  return addFinding(findings, code, costs === undefined ? message : `${message}; ${costs}`, rest)
}

/** Findings that the list does not hold. */
export function findingsLeftOut(findings: Findings): number {
  let all = 0
  for (const count of findings.counts.values()) all += count
  return all - findings.list.length
}

/** Names a file of a snapshot; once for each pair, which the caller sees to. */
export function addHurtFile(finding: Finding, snapshot: string, rawPath: string, below: boolean): void {
  addHurtSnapshot(finding, snapshot)
  finding.fileCount++
  if (finding.files.length < HURT_FILES_MAX)
    finding.files.push({ snapshot, path: displayName(rawPath), below })
}

export function addHurtSnapshot(finding: Finding, snapshot: string): void {
  if (finding.snapshots.at(-1) !== snapshot && !finding.snapshots.includes(snapshot))
    finding.snapshots.push(snapshot)
}

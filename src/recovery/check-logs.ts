/**
 * The check of logs: headers, the chains they make, and that positions follow each other without a gap; with
 * read data also that the bodies are what was signed. Not here: whether the log goes on from each snapshot
 * (check-continuity.ts).
 */
import { isFailure, type Failure } from '../base/failure.ts'
import { logName } from '../format/log-header.ts'
import { isDamage, isUnreadable } from '../repo/damage.ts'
import type { Access, DomainKeys } from '../repo/keys.ts'
import { coverage, describeRange, missingPositions, type PositionRange } from '../repo/log-coverage.ts'
import type { LogFinding } from '../repo/log-findings.ts'
import { verifyLogObject } from '../repo/log-reader.ts'
import { rangesOf, segmentAt, type LogTable } from '../repo/log-table.ts'
import { listLogs, type LogList } from '../repo/logs.ts'
import { addFinding, addUnreadFinding, type FindingCode, type Findings } from './check-findings.ts'
import { canReadContents } from './check-scope.ts'
import { throwIfCancelled } from './check-threads.ts'

const DAY_MS = 86_400_000

export interface LogsContext {
  readonly findings: Findings
  readonly access: Access
  /** Those whose keys were opened. */
  readonly domains: ReadonlyMap<string, DomainKeys>
  /** Percent of the bodies to read; each day others, so that in time all are read. */
  readonly readData: number
  /** Milliseconds. */
  readonly now: number
  readonly signal: AbortSignal | undefined
}

/** Returns what it listed. Fails: as list() when the store as a whole does not answer, cancelled. */
export async function checkLogs(context: LogsContext): Promise<LogList> {
  const { findings, access, signal } = context
  const list = await listLogs(access, signal === undefined ? {} : { signal })
  for (const finding of list.findings) report(findings, finding)
  if (list.leftOut > 0) {
    const message = `${list.leftOut} more findings about logs are left out`
    addFinding(findings, 'log.corrupt', message)
  }
  if (context.readData === 0) return list
  for (const table of list.branches) await readBranch(context, table)
  await readFiles(context, list)
  return list
}

function report(findings: Findings, { code, message, object }: LogFinding): void {
  const of = object === undefined ? {} : { object }
  if (code === 'log.unreadable')
    addUnreadFinding(findings, 'log.corrupt', { message, unreadable: true }, { object: object ?? '' })
  else if (code === 'log.unknown') addFinding(findings, 'object.unknown', message, of)
  // Which branches are its own only a source knows: nobody was asked here.
  else if (code !== 'log.branch') addFinding(findings, code, message, of)
}

async function readBranch(context: LogsContext, table: LogTable): Promise<void> {
  const { access, signal } = context
  const bad = new Map<number, Failure>()
  for (let row = 0; row < table.count; row++) {
    throwIfCancelled(signal)
    const { place, bytes, sha256 } = segmentAt(table, row)
    if (!isTurn(context, sha256)) continue
    const object = { name: logName(place), bytes, sha256 }
    const failure = await failureOf(verifyLogObject(access, object, opens(context, table.domain)))
    if (failure !== undefined) bad.set(row, failure)
  }
  if (bad.size === 0) return
  const whole = coverage(wholeRanges(table, bad))
  for (const [row, failure] of bad) {
    const segment = segmentAt(table, row)
    const lost = missingPositions(whole, segment)
    const costs =
      lost.length === 0
        ? 'nothing is lost: other objects hold these positions too'
        : `positions ${lost.map(describeRange).join(', ')} of "${table.source}" (${table.branch}) are lost`
    const object = logName(segment.place)
    const finding = addUnreadFinding(context.findings, codeOf(failure), failure, { object, costs })
    if (lost.length === 0 && finding.severity === 'error') finding.severity = 'warning'
  }
}

function* wholeRanges(table: LogTable, bad: ReadonlyMap<number, Failure>): Generator<PositionRange> {
  let row = 0
  for (const range of rangesOf(table)) if (!bad.has(row++)) yield range
}

async function readFiles(context: LogsContext, { files }: LogList): Promise<void> {
  const { findings, access, signal } = context
  for (const file of files) {
    throwIfCancelled(signal)
    if (!isTurn(context, file.sha256)) continue
    const failure = await failureOf(verifyLogObject(access, file, opens(context, file.place.domain)))
    if (failure !== undefined) addUnreadFinding(findings, codeOf(failure), failure, { object: file.name })
  }
}

/** Tail pieces come and go while a check runs: one that is gone was merged, and is no damage. */
async function failureOf(verifying: Promise<void>): Promise<Failure | undefined> {
  try {
    await verifying
    return undefined
  } catch (error) {
    if (!isDamage(error)) throw error
    return isFailure(error, 'storage.missing') && /\/tail\//.test(String(error.facts['name']))
      ? undefined
      : error
  }
}

function codeOf(failure: Failure): FindingCode {
  if (isUnreadable(failure)) return 'log.corrupt'
  if (failure.code === 'repo.forged') return 'log.forged'
  return failure.code === 'repo.newer' ? 'log.newer' : 'log.corrupt'
}

/** Whether the contents can be opened, or only compared with their checksums. */
function opens({ domains }: LogsContext, domain: string): boolean {
  const keys = domains.get(domain)
  return keys !== undefined && canReadContents(keys)
}

/** By the object's hash, moved on each day: with P percent a day all are read in 100 / P days. */
function isTurn({ readData, now }: LogsContext, sha256: string): boolean {
  if (readData >= 100) return true
  const at = Number.parseInt(sha256.slice(0, 8), 16) % 100
  const begin = Math.floor((Math.floor(now / DAY_MS) * readData) % 100)
  return (at - begin + 100) % 100 < readData
}

/**
 * Takes over what an interrupted backup left: its pack set, the packs its index runs list, and the packs it
 * stored after the last run. Nothing is believed that was not looked at: runs must list packs that are there
 * in full length, packs without a run are read and hashed.
 */
import { INDEX_PACK_BYTES, indexPackAt } from '../format/index-run.ts'
import { decodeIndexRun } from '../format/index-run-decoder.ts'
import { isFailure } from '../base/failure.ts'
import { decodeSigned, verifySigned } from '../format/signed.ts'
import { parseSession, type LineageRun, type Session } from '../format/snapshot.ts'
import { sha256 } from '../format/seal.ts'
import type { Config, ConfigDomain } from '../format/config.ts'
import { currentEpoch, type DomainKeys } from '../repo/keys.ts'
import { runName } from '../repo/names.ts'
import { openPackTail, readPackFooter, storedPackOf } from '../repo/pack-tail.ts'
import type { AdoptedRuns } from '../repo/run-writer.ts'
import type { StoredPack } from '../repo/saver.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import type { BlobStat, BlobStore } from '../storage/store.ts'
import type { BackupPlan } from './parent.ts'

/** A pack stored this long before its session's announcement, by the store's clock, is not looked at. */
const CLOCK_SLACK_MS = 60_000

export interface Adopted extends AdoptedRuns {
  readonly packSet: string
  /** Packs that no run lists yet; numbers are 0 and given when they join the index. */
  readonly loose: readonly StoredPack[]
}

export interface AdoptContext {
  readonly store: BlobStore
  readonly config: Config
  readonly domain: ConfigDomain
  readonly keys: DomainKeys
  readonly source: string
  readonly history: readonly StoredSnapshot[]
}

/** What the sessions of this source's earlier runs leave to do. */
export interface Leftovers {
  /** The leftovers of the latest dead session that fits the plan. */
  readonly adopted: Adopted | undefined
  /** Names of session objects that are of no use once this backup is committed. */
  readonly spent: readonly string[]
}

interface DeadSession {
  readonly name: string
  readonly session: Session
  /** By the store's clock. */
  readonly announced: number
}

export async function adoptSession(context: AdoptContext, plan: BackupPlan): Promise<Leftovers> {
  const used = new Set(context.history.map((snapshot) => snapshot.packSet))
  const sessions = await listSessions(context)
  const spent = sessions.filter(({ session }) => used.has(session.packSet)).map(({ name }) => name)
  const fitting = sessions.filter(
    ({ session }) => !used.has(session.packSet) && isFitting(context, plan, session),
  )
  for (const { session } of fitting.sort((a, b) => b.announced - a.announced)) {
    const same = fitting.filter((other) => other.session.packSet === session.packSet)
    // A session that adopted the set and died as well is younger than the packs.
    const announced = Math.min(...same.map((other) => other.announced))
    const adopted = await adoptPackSet(context, session, announced)
    if (adopted !== undefined) return { adopted, spent: [...spent, ...same.map(({ name }) => name)] }
  }
  return { adopted: undefined, spent }
}

/** Bytes of all packs taken over. */
export function adoptedBytes(adopted: Adopted): number {
  return adopted.bytes + adopted.loose.reduce((sum, pack) => sum + pack.bytes, 0)
}

/** Same generation, and sealed to the current keys: what a removed recipient could open is not taken over. */
function isFitting(context: AdoptContext, plan: BackupPlan, session: Session): boolean {
  if (session.epoch !== currentEpoch(context.keys).epoch) return false
  if (plan.kind === 'full') return session.kind === 'full'
  return session.kind !== 'full' && session.generation === plan.full?.generation
}

async function listSessions(context: AdoptContext): Promise<DeadSession[]> {
  const { store, domain, source } = context
  const sessions: DeadSession[] = []
  for await (const { name, modified } of store.list(`sessions/${domain.id}/${source}/`)) {
    const session = await readSession(context, name)
    if (session !== undefined) sessions.push({ name, session, announced: modified })
  }
  return sessions
}

/** undefined for what cannot be believed: adopting is a favour, not a duty. */
async function readSession(context: AdoptContext, name: string): Promise<Session | undefined> {
  try {
    const bytes = await context.store.get(name)
    const object = decodeSigned(bytes, { kind: 'session', repository: context.config.repository, name })
    verifySigned(object, Buffer.from(context.domain.writer.signing, 'hex'))
    return parseSession(object.payload, name)
  } catch (error) {
    if (isFailure(error) && !error.code.startsWith('storage.offline')) return undefined
    throw error
  }
}

async function adoptPackSet(
  context: AdoptContext,
  session: Session,
  announced: number,
): Promise<Adopted | undefined> {
  const { store, domain } = context
  const there = new Map<string, BlobStat>()
  for (const folder of ['packs', 'meta'])
    for await (const blob of store.list(`d/${domain.id}/${folder}/`)) there.set(blob.name.slice(-64), blob)
  const listed = new Set<string>()
  const runs: LineageRun[] = []
  let [next, bytes] = [1, 0]
  for await (const { name } of store.list(`d/${domain.id}/index/${session.packSet}/`)) {
    next = Math.max(next, Number(name.slice(-6)) + 1)
    const run = await readRun(context, session.packSet, name)
    if (run === undefined || run.packs.some((pack) => there.get(pack.id)?.bytes !== pack.bytes)) continue
    runs.push(run.reference)
    for (const pack of run.packs) {
      if (!listed.has(pack.id)) bytes += pack.bytes
      listed.add(pack.id)
    }
  }
  const loose: StoredPack[] = []
  for (const [id, blob] of there) {
    if (listed.has(id) || blob.modified < announced - CLOCK_SLACK_MS) continue
    const pack = await readLoosePack(context, session.packSet, id, blob)
    if (pack !== undefined) loose.push(pack)
  }
  if (runs.length === 0 && loose.length === 0) return undefined
  return { packSet: session.packSet, runs, next, packs: listed.size, bytes, loose }
}

async function readRun(
  context: AdoptContext,
  packSet: string,
  name: string,
): Promise<{ reference: LineageRun; packs: { id: string; bytes: number }[] } | undefined> {
  try {
    const object = await context.store.get(name)
    const number = Number(name.slice(-6))
    if (name !== runName(context.domain.id, packSet, number)) return undefined
    const expected = {
      repository: Buffer.from(context.config.repository, 'hex'),
      domain: Buffer.from(context.domain.id, 'hex'),
      packSet: Buffer.from(packSet, 'hex'),
      number,
      what: name,
    }
    const run = decodeIndexRun(object, expected, context.keys.indexKey)
    const packs = Array.from({ length: run.packs.length / INDEX_PACK_BYTES }, (_, i) =>
      indexPackAt(run.packs, i),
    )
    return {
      reference: { n: number, sha256: sha256(object).toString('hex'), entries: run.entries.length / 40 },
      packs,
    }
  } catch (error) {
    if (isFailure(error) && !error.code.startsWith('storage.offline')) return undefined
    throw error
  }
}

/** A whole, right pack of this pack set, or undefined. */
async function readLoosePack(
  context: AdoptContext,
  packSet: string,
  id: string,
  blob: BlobStat,
): Promise<StoredPack | undefined> {
  const { store, config, domain, keys } = context
  const repository = Buffer.from(config.repository, 'hex')
  const { indexKey, frameBytesMax } = keys
  const owner = { repository, domain: domain.id, indexKey, frameBytesMax }
  try {
    const footer = await readPackFooter(store, owner, blob)
    if (footer.packSet.toString('hex') !== packSet) return undefined
    const bytes = await store.get(blob.name)
    if (sha256(bytes).toString('hex') !== id) return undefined
    return storedPackOf(openPackTail(owner, blob, bytes), { id, bytes: blob.bytes })
  } catch (error) {
    if (isFailure(error) && !error.code.startsWith('storage.offline')) return undefined
    throw error
  }
}

/**
 * All trees and refs records, stream by stream: each snapshot's tree is counted (from its parent's count
 * where that is known), compared with the refs record, and walked for names if something it needs is lost.
 */
import { attachIndex, detachIndex } from '../repo/chunk-index.ts'
import { isDamage } from '../repo/damage.ts'
import type { HostFolder } from '../repo/host-folder.ts'
import type { Access, DomainKeys } from '../repo/keys.ts'
import { openLineage } from '../repo/lineage.ts'
import { newPackReader, type PackReader } from '../repo/pack-reader.ts'
import { readerKeys } from '../repo/reader-keys.ts'
import type { StoredSnapshot } from '../repo/snapshots.ts'
import { addFinding, addHurtFile, addHurtSnapshot, type Findings } from './check-findings.ts'
import { isHurt, nameHurtFiles } from './check-hurt.ts'
import {
  checkRefsAlone,
  compareRefs,
  isSameRefs,
  newRefsReader,
  readRefs,
  reportRefs,
  type RefsReader,
} from './check-refs.ts'
import { lostRunOf, type CheckedRuns } from './check-runs.ts'
import { canReadContents, canReadRefs } from './check-scope.ts'
import {
  copyCounts,
  countTree,
  newCheckedTree,
  recountTree,
  type CheckedTree,
  type Counts,
  type TreeTally,
} from './check-tree.ts'

export interface TreesContext {
  readonly findings: Findings
  readonly access: Access
  readonly host: HostFolder
  readonly domains: ReadonlyMap<string, DomainKeys>
  readonly checked: CheckedRuns
  readonly tally: TreeTally
  /** Also ends the check by throwing. */
  readonly onSnapshot: () => void
  readonly onNode: () => void
}

/** A snapshot that was counted, as a base for those made against it. */
interface Counted {
  readonly snapshot: StoredSnapshot
  readonly counts: Counts
  /** Snapshots to come that were made against it. */
  children: number
}

/**
 * `snapshots`: ascending by domain, source and counter. Returns whether all could be read that says which
 * chunks they need. Fails: storage.* that ends the check, cancelled.
 */
export async function checkTrees(
  context: TreesContext,
  snapshots: readonly StoredSnapshot[],
): Promise<boolean> {
  let isWhole = true
  for (const [id, domain] of context.domains) {
    const own = snapshots.filter((snapshot) => snapshot.domain === id)
    const refs = newRefsReader(
      context.findings,
      context.access.store,
      context.access.config.repository,
      domain,
      context.checked.packs,
    )
    if (own.length > 0 && !(await checkDomain(context, domain, refs, own))) isWhole = false
  }
  return isWhole
}

async function checkDomain(
  context: TreesContext,
  domain: DomainKeys,
  refs: RefsReader,
  snapshots: readonly StoredSnapshot[],
): Promise<boolean> {
  const { findings, access } = context
  const canReadTrees = canReadContents(domain)
  if (!canReadTrees) {
    const rest = canReadRefs(domain) ? '' : ', refs records'
    const message =
      `Not checked with this credential: trees, files${rest} of domain ${domain.domain}` +
      ` (a restorer's can)`
    addFinding(findings, 'not-checked', message)
  }
  const children = new Map<string, number>()
  for (const { source, parent } of snapshots)
    if (parent !== null) children.set(`${source}/${parent}`, (children.get(`${source}/${parent}`) ?? 0) + 1)
  const packs = canReadTrees
    ? newPackReader(access.store, readerKeys(domain, access.config.repository))
    : undefined
  const bases = new Map<string, Counted>()
  let areWhole = true
  for (const snapshot of snapshots) {
    context.onSnapshot()
    const base = takeBase(bases, snapshot)
    if (packs === undefined && !canReadRefs(domain)) {
      blameByLineage(context.checked, snapshot)
      continue
    }
    const { isWhole, counts } = await checkSnapshot(context, domain, { snapshot, refs, packs, base })
    areWhole &&= isWhole
    const coming = children.get(`${snapshot.source}/${snapshot.id}`) ?? 0
    if (counts !== undefined && coming > 0)
      bases.set(`${snapshot.source}/${snapshot.id}`, { snapshot, counts, children: coming })
  }
  return areWhole
}

/** The parent's count, to be changed; a copy while others still need it. */
function takeBase(bases: Map<string, Counted>, snapshot: StoredSnapshot): Counted | undefined {
  const key = `${snapshot.source}/${snapshot.parent}`
  const base = bases.get(key)
  if (base === undefined) return undefined
  base.children--
  const isUsable = base.snapshot.lineage.every((set) =>
    snapshot.lineage.some((each) => each.packSet === set.packSet && each.runs.length === set.runs.length),
  )
  if (base.children === 0) bases.delete(key)
  if (!isUsable) return undefined
  return base.children === 0 ? base : { ...base, counts: copyCounts(base.counts) }
}

/** For who can read neither: what may be hurt. */
function blameByLineage(checked: CheckedRuns, snapshot: StoredSnapshot): void {
  const sets = new Set(snapshot.lineage.map((set) => set.packSet))
  for (const pack of checked.packs.values())
    if (pack.damage !== undefined && sets.has(pack.packSet)) addHurtSnapshot(pack.damage.finding, snapshot.id)
  const lostRun = lostRunOf(checked, snapshot)
  if (lostRun !== undefined) addHurtSnapshot(lostRun, snapshot.id)
}

/** What is known of the chunks that a snapshot needs. */
interface Needs {
  /** They all are known, at least those that the credential can see. */
  readonly isWhole: boolean
  /** If it can serve as a base. */
  readonly counts?: Counts
}

async function checkSnapshot(
  context: TreesContext,
  domain: DomainKeys,
  of: {
    readonly snapshot: StoredSnapshot
    readonly refs: RefsReader
    readonly packs: PackReader | undefined
    readonly base: Counted | undefined
  },
): Promise<Needs> {
  const { access, host, findings, checked, tally, onNode } = context
  const { snapshot, refs, packs } = of
  const { repository } = access.config
  const { store } = access
  const census = checked.censuses.get(domain.domain)
  const place = { store, repository, keys: domain, host, ...(census === undefined ? {} : { census }) }
  const { index: shared, rebuilt } = await openLineage(place, snapshot.lineage)
  const index = attachIndex(shared)
  const lostRun = lostRunOf(checked, snapshot)
  try {
    const record = await readRefs(refs, index, snapshot)
    if (packs === undefined) {
      if (record !== undefined) checkRefsAlone(refs, snapshot, record, lostRun)
      return { isWhole: record !== undefined }
    }
    const reader = { snapshot, keys: packs.keys, index, packs, rebuilt }
    const open: OpenTree = (counts, base) =>
      newCheckedTree({ reader, packs: checked.packs, lostRun, tally, onNode }, counts, base)
    let tree = await countSnapshot(open, snapshot, of.base)
    if (record !== undefined && tree.isWhole) {
      let difference = compareRefs(refs, record, tree.counts)
      if (!isSameRefs(difference) && of.base !== undefined) {
        tree = await countSnapshot(open, snapshot, undefined)
        difference = compareRefs(refs, record, tree.counts)
      }
      if (!isSameRefs(difference)) await reportRefs(refs, snapshot, difference)
    }
    if (!tree.isWhole || isHurt(tree.counts)) await nameHurtFiles(findings, tree)
    return tree.isWhole ? { isWhole: true, counts: tree.counts } : { isWhole: false }
  } catch (error) {
    // A tree without end or bottom: only a writer that lies makes one.
    if (!isDamage(error)) throw error
    const of = { object: snapshot.name }
    const finding = addFinding(findings, 'tree.lost', `${snapshot.name}: ${error.message}`, of)
    addHurtFile(finding, snapshot.id, '/', true)
    return { isWhole: false }
  } finally {
    detachIndex(index)
  }
}

type OpenTree = (counts: Counts, base?: StoredSnapshot) => CheckedTree

async function countSnapshot(
  open: OpenTree,
  snapshot: StoredSnapshot,
  base: Counted | undefined,
): Promise<CheckedTree> {
  const root = Buffer.from(snapshot.root, 'hex')
  if (base !== undefined) {
    const tree = open(base.counts, base.snapshot)
    try {
      await recountTree(tree, Buffer.from(base.snapshot.root, 'hex'), root)
      if (!tree.isMiscounted && tree.isWhole) return tree
    } catch (error) {
      // Whose damage it is, this snapshot's or its parent's, only a count of its own tells.
      if (!isDamage(error)) throw error
    }
  }
  const tree = open(new Map())
  await countTree(tree, root, 1)
  return tree
}

/**
 * Everything the store holds, from one listing, sorted by what it is; and the checks that need no more than
 * that: configs, key bundles, sessions, names nobody knows. Not the content of packs, runs and trees.
 */
import { Failure } from '../base/failure.ts'
import { bundleName, configName, configNumber, parseConfig, type Config } from '../format/config.ts'
import { decodeSigned, verifySigned } from '../format/signed.ts'
import { isDamage, isUnreadable } from '../repo/damage.ts'
import { domainKeys, type Access, type DomainKeys } from '../repo/keys.ts'
import type { BlobStore, Stray } from '../storage/store.ts'
import { addFinding, addUnreadFinding, type Findings } from './check-findings.ts'

/** Names of unknown objects that a finding quotes. */
const QUOTED_MAX = 10

export interface Inventory {
  /** Of any kind. */
  readonly objects: number
  readonly configs: readonly number[]
  readonly keys: ReadonlySet<string>
  /** Object names. */
  readonly snapshots: readonly string[]
  /** Bytes by object name. */
  readonly runs: ReadonlyMap<string, number>
  /** Packs by object name: bytes. */
  readonly packs: ReadonlyMap<string, number>
  readonly sessions: readonly string[]
  readonly unknown: readonly string[]
  /** By name: what lies where an object should, or could, and is none. */
  readonly strays: ReadonlyMap<string, Stray>
}

/** What a name must look like; the first group is the domain. */
const PATTERNS = {
  keys: /^keys\/([0-9a-f]{16})\/[1-9][0-9]{0,9}\/[0-9a-f]{16}\.age$/,
  packs: /^d\/([0-9a-f]{16})\/(?:packs|meta)\/([0-9a-f]{2})\/(?=\2)[0-9a-f]{64}$/,
  runs: /^d\/([0-9a-f]{16})\/index\/[0-9a-f]{32}\/[0-9]{6}$/,
  snapshots: /^d\/([0-9a-f]{16})\/snapshots\/[a-z0-9][a-z0-9._-]{0,62}\/[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}$/,
  sessions: /^sessions\/([0-9a-f]{16})\/[a-z0-9][a-z0-9._-]{0,62}\/[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}$/,
  /** For later features, which an older program leaves alone. */
  reserved: /^(?:tombs|receipts|marks)\/|^d\/([0-9a-f]{16})\/(?:logs|points)\//,
} as const

/**
 * Lists the store once. Configs and snapshots are also those in whose place something else lies: reading them
 * says so. Fails: as list() does.
 */
export async function takeInventory(
  store: BlobStore,
  config: Config,
  onObject: () => void,
): Promise<Inventory> {
  const domains = new Set(config.domains.map((domain) => domain.id))
  const configs: number[] = []
  const keys = new Set<string>()
  const snapshots: string[] = []
  const runs = new Map<string, number>()
  const packs = new Map<string, number>()
  const sessions: string[] = []
  const unknown: string[] = []
  const strays = new Map<string, Stray>()
  const onStray = (stray: Stray): void => {
    const { name, is } = stray
    const n = configNumber(name)
    const kind = kindOf(name, domains)
    if (kind === 'reserved' || (is === 'folder' && n === undefined && kind === undefined)) return
    strays.set(name, stray)
    if (n !== undefined) configs.push(n)
    else if (kind === 'snapshots') snapshots.push(name)
  }
  let objects = 0
  for await (const { name, bytes } of store.list('', { onStray })) {
    onObject()
    objects++
    const n = configNumber(name)
    const kind = kindOf(name, domains)
    if (n !== undefined) configs.push(n)
    else if (kind === 'packs') packs.set(name, bytes)
    else if (kind === 'runs') runs.set(name, bytes)
    else if (kind === 'snapshots') snapshots.push(name)
    else if (kind === 'keys') keys.add(name)
    else if (kind === 'sessions') sessions.push(name)
    else if (kind === undefined) unknown.push(name)
  }
  return { objects, configs, keys, snapshots, runs, packs, sessions, unknown, strays }
}

/** What an object is by its name; undefined if nothing of this repository is called so. */
function kindOf(name: string, domains: ReadonlySet<string>): keyof typeof PATTERNS | undefined {
  for (const [kind, pattern] of Object.entries(PATTERNS) as [keyof typeof PATTERNS, RegExp][]) {
    const match = pattern.exec(name)
    if (match !== null) return match[1] === undefined || domains.has(match[1]) ? kind : undefined
  }
  return undefined
}

/** Sessions, unknown names. */
export function checkNames(findings: Findings, inventory: Inventory): void {
  for (const object of inventory.sessions) {
    const message = `${object} is open: a backup is under way, or one died and the next takes over`
    addFinding(findings, 'session.open', message, { object })
  }
  const { unknown } = inventory
  if (unknown.length === 0) return
  const message = `The store holds objects that belong to nothing here: ${quote(unknown)}`
  addFinding(findings, 'object.unknown', message)
}

function quote(names: readonly string[]): string {
  const more = names.length > QUOTED_MAX ? `, and ${names.length - QUOTED_MAX} more` : ''
  return names.slice(0, QUOTED_MAX).join(', ') + more
}

/** What is no object and stands in no other finding: it is in the way, but nothing is known to miss. */
export function checkStrays(findings: Findings, { strays }: Inventory): void {
  const named = new Set(findings.list.map(({ object }) => object))
  const others = [...strays.values()].filter(({ name }) => !named.has(name))
  if (others.length === 0) return
  const quoted = quote(others.map(({ name, is }) => `${name} (a ${is})`))
  addFinding(findings, 'object.unknown', `The store holds what can be no object: ${quoted}`)
}

/** What lies in the place of the object, or of a folder above it. */
export function strayAt({ strays }: Inventory, object: string): Stray | undefined {
  for (let name = object; name !== ''; name = name.slice(0, Math.max(0, name.lastIndexOf('/')))) {
    const stray = strays.get(name)
    if (stray !== undefined) return stray
  }
  return undefined
}

/** Every config from the first to the one in use, signed and each the successor of the one before. */
export async function checkConfigs(findings: Findings, access: Access, inventory: Inventory): Promise<void> {
  const { config, configSha256 } = access
  const there = new Set(inventory.configs)
  for (let n = 1; n <= config.n; n++) {
    if (there.has(n)) continue
    const object = configName(n)
    addFinding(findings, 'config.missing', `${object} is missing (config/${config.n} is in use)`, { object })
  }
  let before: { n: number; sha256: string } | undefined
  for (const n of inventory.configs.toSorted((a, b) => a - b)) {
    const object = configName(n)
    try {
      const read = await readConfigObject(access, object)
      if (read.config.n !== n) throw forged(object, `its payload is that of config/${read.config.n}`)
      if (before?.n === n - 1 && read.config.previous !== before.sha256)
        throw forged(object, `it does not follow config/${n - 1}`)
      if (n === config.n && read.sha256 !== configSha256)
        throw forged(object, 'it is not the one that was opened a moment ago')
      before = { n, sha256: read.sha256 }
    } catch (error) {
      if (!isDamage(error)) throw error
      before = undefined
      addUnreadFinding(findings, 'config.corrupt', error, { object })
    }
  }
}

async function readConfigObject(access: Access, name: string): Promise<{ config: Config; sha256: string }> {
  const { repository, authority } = access.config
  const object = decodeSigned(await access.store.get(name), { kind: 'config', repository, name })
  verifySigned(object, Buffer.from(authority, 'hex'))
  return { config: parseConfig(object.payload, name), sha256: object.sha256 }
}

function forged(name: string, is: string): Failure {
  return new Failure('repo.forged', `Cannot trust ${name}: ${is}`, { facts: { name } })
}

/** By domain: its keys, or why its bundles do not open though the credential should have them. */
export interface OpenedDomains {
  readonly domains: ReadonlyMap<string, DomainKeys>
  readonly closed: ReadonlyMap<string, 'damaged' | 'unreadable'>
}

/**
 * That every recipient has its bundles, and the keys of every domain that this credential can open. What it
 * cannot open is left out, with a finding.
 */
export async function checkBundles(
  findings: Findings,
  access: Access,
  inventory: Inventory,
): Promise<OpenedDomains> {
  const { config } = access
  for (const domain of config.domains)
    for (const { epoch } of domain.epochs)
      for (const recipient of config.recipients) {
        const object = bundleName(domain.id, epoch, recipient.id)
        if (inventory.keys.has(object)) continue
        const stray = strayAt(inventory, object)
        const instead = stray === undefined ? '' : ` (a ${stray.is} lies at ${stray.name})`
        const costs = `"${recipient.name}" cannot open what ${domain.name} wrote`
        const message = `${object} is missing${instead}: ${costs}`
        addFinding(findings, 'bundle.missing', message, { object })
      }
  const domains = new Map<string, DomainKeys>()
  const closed = new Map<string, 'damaged' | 'unreadable'>()
  for (const domain of config.domains) {
    if (access.credential.type === 'writer' && access.credential.domain !== domain.id) {
      addFinding(
        findings,
        'not-checked',
        `Not checked: domain ${domain.id} (${domain.name}), of another writer`,
      )
      continue
    }
    try {
      domains.set(domain.id, await domainKeys(access, domain.id))
    } catch (error) {
      if (!isDamage(error)) throw error
      closed.set(domain.id, isUnreadable(error) ? 'unreadable' : 'damaged')
      const costs = `nothing of ${domain.name} could be checked`
      addUnreadFinding(findings, 'bundle.corrupt', error, { object: bundlePrefix(error, domain.id), costs })
    }
  }
  return { domains, closed }
}

function bundlePrefix(error: Failure, domain: string): string {
  const name = error.facts['name'] ?? error.facts['what']
  return typeof name === 'string' ? name : `keys/${domain}/`
}

/**
 * How far a check can see with the credential at hand: domain by domain, so that silence is not taken for
 * proof.
 */
import type { Config } from '../format/config.ts'
import type { PackKind } from '../format/pack.ts'
import type { DomainKeys } from '../repo/keys.ts'
import type { OpenedDomains } from './check-inventory.ts'

/** What a check looks at in a domain, and how it is called in a sentence. */
export const CHECK_PARTS = {
  signatures: 'signatures and numbers of snapshots',
  index: 'index runs',
  checksums: 'checksums of packs',
  refs: 'refs records',
  trees: 'trees',
  contents: 'contents of files',
} as const

export type CheckPart = keyof typeof CHECK_PARTS

/** What the credential lets a check examine; how much of the packs is read is another matter. */
export interface DomainScope {
  readonly domain: string
  readonly name: string
  readonly examined: readonly CheckPart[]
  readonly notExamined: readonly CheckPart[]
  /** Why some was not: the credential has no keys to it, or its bundle of keys does not open. */
  readonly why: 'credential' | 'damaged' | 'unreadable' | undefined
}

/** What could be examined with the keys that were opened. */
export function scopeOf(config: Config, { domains, closed }: OpenedDomains): DomainScope[] {
  return config.domains.map(({ id, name }) => {
    const keys = domains.get(id)
    const isExamined = (part: CheckPart): boolean => {
      if (part === 'signatures') return true
      if (keys === undefined) return false
      if (part === 'refs') return canReadRefs(keys)
      return part === 'trees' || part === 'contents' ? canReadContents(keys) : true
    }
    const parts = Object.keys(CHECK_PARTS) as CheckPart[]
    const notExamined = parts.filter((part) => !isExamined(part))
    const why = notExamined.length === 0 ? undefined : (closed.get(id) ?? 'credential')
    return { domain: id, name, examined: parts.filter(isExamined), notExamined, why }
  })
}

/** Whether nothing was beyond the credential. */
export function isWholeScope(scope: readonly DomainScope[]): boolean {
  return scope.every(({ notExamined }) => notExamined.length === 0)
}

export function canReadRefs(keys: DomainKeys): boolean {
  return keys.epochs.every((epoch) => epoch.metaPrivate !== undefined)
}

/** Trees, and the bytes of files compared with the ids of their chunks. */
export function canReadContents(keys: DomainKeys): boolean {
  return keys.idKey !== undefined && keys.epochs.every((epoch) => epoch.dataPrivate !== undefined)
}

/** Whether the chunks of such a pack can be opened and compared with their ids. */
export function canOpenPack(keys: DomainKeys, kind: PackKind): boolean {
  return kind === 'refs' ? keys.idKey !== undefined && canReadRefs(keys) : canReadContents(keys)
}

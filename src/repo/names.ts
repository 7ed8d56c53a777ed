/**
 * Names of packs and index runs in the store (docs/format.md section 1); the signed objects' lie beside their
 * codecs.
 */
import type { PackKind } from '../format/pack.ts'

/** Data packs lie apart from the rest, so that they can go to a cold tier. */
export function packName(domain: string, kind: PackKind, id: string): string {
  return `d/${domain}/${kind === 'data' ? 'packs' : 'meta'}/${id.slice(0, 2)}/${id}`
}

export function runName(domain: string, packSet: string, number: number): string {
  return `d/${domain}/index/${packSet}/${String(number).padStart(6, '0')}`
}

/** The one list of store drivers, by the scheme of their URLs. */
import { fileURLToPath } from 'node:url'
import { Failure } from '../base/failure.ts'
import { localStore } from './local.ts'
import type { BlobStore } from './store.ts'

export interface OpenStoreOptions {
  /** Makes an empty store where there is none; only `init` says so. */
  readonly create?: boolean
  /** For worker threads that may wait: see localStore(). */
  readonly blocking?: boolean
}

interface Driver {
  /** What a URL of this scheme names. Fails: config.invalid. */
  readonly place: (url: string) => string
  readonly open: (place: string, options: OpenStoreOptions) => Promise<BlobStore>
}

const DRIVERS = new Map<string, Driver>([['file', { place: pathOfFileUrl, open: localStore }]])

/**
 * Opens the store at `url` (`file:///var/backups/acme`). The caller closes it.
 * Fails: config.invalid (not such a URL), storage.offline, storage.denied, and what its driver says.
 */
export async function openStore(url: string, options: OpenStoreOptions = {}): Promise<BlobStore> {
  const { place, open } = driverOf(url)
  return open(place(url), options)
}

/** Refuses what is no URL of a store, without looking for the store. Fails: config.invalid. */
export function checkStoreUrl(url: string): void {
  driverOf(url).place(url)
}

function driverOf(url: string): Driver {
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(url)?.[1]
  if (scheme === undefined) {
    const must = url.startsWith('/')
      ? `write file://${url}`
      : 'write file:// and an absolute path: file:///var/backups/acme'
    throw notStore(JSON.stringify(url), 'it is no URL', must)
  }
  const driver = DRIVERS.get(scheme)
  // Not the whole URL: it may hold a password.
  if (driver === undefined)
    throw notStore(`"${scheme}:…"`, 'no driver has this scheme', `known: ${knownSchemes()}`)
  return driver
}

function knownSchemes(): string {
  return [...DRIVERS.keys()].map((scheme) => `${scheme}://`).join(', ')
}

/** The absolute path of a file URL; percent-encoded bytes decoded. */
function pathOfFileUrl(url: string): string {
  const shown = JSON.stringify(url)
  // The URL class would silently make `file:x` and `file:./x` absolute.
  if (!/^file:\/\/(localhost)?\//.test(url)) {
    throw notStore(
      shown,
      'its path is relative or names a host',
      'three slashes and an absolute path: file:///var/backups',
    )
  }
  if (/[?#]/.test(url)) throw notStore(shown, 'it has a query or fragment', 'write ? as %3F and # as %23')
  let path: string
  try {
    path = fileURLToPath(url)
  } catch (cause) {
    throw notStore(shown, 'its path cannot be decoded', 'write % as %25; a name cannot hold a slash', cause)
  }
  if (path.includes('\0')) throw notStore(shown, 'its path holds a zero byte', 'no path can')
  if (path === '/') throw notStore(shown, 'it is the root folder', 'a store has a folder of its own')
  return path.replace(/\/+$/, '')
}

function notStore(shown: string, is: string, must: string, cause?: unknown): Failure {
  return new Failure('config.invalid', `Cannot open the store ${shown}: ${is} (${must})`, { cause })
}

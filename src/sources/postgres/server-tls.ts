/**
 * What libpq's `sslmode` means for a TLS connection (documentation, "SSL Support"). Differences: a root
 * certificate that is named must be there, whatever the mode; `allow` and `prefer` look at no certificate,
 * since they would go on without TLS anyway.
 */
import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { createSecureContext, getCACertificates, type ConnectionOptions } from 'node:tls'
import { describeError, errnoOf, Failure } from '../../base/failure.ts'
import type { Parameters } from './server-url.ts'

export interface TlsChoice {
  readonly tls: false | ConnectionOptions
  /** What to try where the server refuses `tls`. */
  readonly tlsElse?: false | ConnectionOptions
}

const MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const
type Mode = (typeof MODES)[number]

/** Also libpq's default: it keeps no one from listening who can change what is sent. */
const MODE_DEFAULT = 'prefer'
/** sslrootcert=system: the authorities that the operating system trusts. */
const SYSTEM_ROOTS = 'system'

/** Fails: config.invalid, host.file. */
export function chooseTls(parameters: Parameters, home: string | undefined): TlsChoice {
  const mode = parseMode(parameters.sslmode ?? defaultMode(parameters))
  if (mode === 'disable') return { tls: false }
  const own = ownCertificate(parameters, home)
  const unchecked: ConnectionOptions = { ...own, rejectUnauthorized: false }
  if (mode === 'allow') return { tls: false, tlsElse: sound(unchecked) }
  if (mode === 'prefer') return { tls: sound(unchecked), tlsElse: false }
  const ca = rootCertificates(parameters, mode, home)
  if (ca === undefined) return { tls: sound(unchecked) }
  if (mode === 'verify-full') return { tls: sound({ ...own, ca }) }
  return { tls: sound({ ...own, ca, checkServerIdentity: () => undefined }) }
}

function defaultMode({ sslrootcert }: Parameters): Mode {
  return sslrootcert === SYSTEM_ROOTS ? 'verify-full' : MODE_DEFAULT
}

function parseMode(text: string): Mode {
  const mode = MODES.find((known) => known === text)
  if (mode === undefined)
    throw new Failure(
      'config.invalid',
      `Cannot use the sslmode of the PostgreSQL server: it is "${text}" (must be one of ${MODES.join(', ')})`,
    )
  return mode
}

/** undefined: nothing to compare with, and the mode asks for none. */
function rootCertificates(
  { sslrootcert }: Parameters,
  mode: Mode,
  home: string | undefined,
): string | string[] | undefined {
  if (sslrootcert === SYSTEM_ROOTS) {
    // Anybody gets a certificate of a public authority: only the name in it says who it is.
    if (mode !== 'verify-full')
      throw new Failure(
        'config.invalid',
        `Cannot use sslrootcert=system with sslmode=${mode}: must be verify-full`,
      )
    return getCACertificates('system')
  }
  const path = sslrootcert ?? homeFile(home, 'root.crt')
  const found = path === undefined ? undefined : readIfThere(path)
  if (found === undefined && (sslrootcert !== undefined || mode !== 'require'))
    throw new Failure(
      'config.invalid',
      `Cannot verify the PostgreSQL server: the root certificate ${path ?? 'of sslrootcert'} is not there ` +
        `(sslmode=${mode} needs it: name a file with sslrootcert, or sslrootcert=system)`,
    )
  return found
}

/** The client's certificate and key; by default ~/.postgresql/postgresql.crt and .key, if they are there. */
function ownCertificate(
  { sslcert, sslkey }: Parameters,
  home: string | undefined,
): { cert?: string; key?: string } {
  const certPath = sslcert ?? homeFile(home, 'postgresql.crt')
  const cert = certPath === undefined ? undefined : readIfThere(certPath)
  if (cert === undefined && sslcert === undefined) return {}
  const keyPath = sslkey ?? homeFile(home, 'postgresql.key')
  const key = keyPath === undefined ? undefined : readIfThere(keyPath)
  if (cert === undefined || key === undefined || keyPath === undefined)
    throw new Failure(
      'config.invalid',
      `Cannot use the client certificate: ${(cert === undefined ? certPath : keyPath) ?? 'sslkey'} is not ` +
        'there (must be a file, named by sslcert and sslkey)',
    )
  refuseOpenKey(keyPath)
  return { cert, key }
}

/** As libpq: only the owner reads it, or the group too where root owns it. */
function refuseOpenKey(path: string): void {
  const { uid, mode } = statSync(path)
  const isOpen = (mode & (uid === 0 && process.getuid?.() !== 0 ? 0o037 : 0o077)) !== 0
  if (isOpen)
    throw new Failure(
      'host.file',
      `Cannot use the key "${path}": others than its owner may read it (run: chmod 0600 ${path})`,
    )
}

/** Finds what cannot be read as a certificate or key before a server is asked. */
function sound(options: ConnectionOptions): ConnectionOptions {
  try {
    // The context would pass over a root certificate that it cannot read.
    if (typeof options.ca === 'string') new X509Certificate(options.ca)
    createSecureContext(options)
    return options
  } catch (error) {
    throw new Failure(
      'config.invalid',
      `Cannot use the certificates of the PostgreSQL server: ${describeError(error)} (must be PEM)`,
      { cause: error },
    )
  }
}

function homeFile(home: string | undefined, name: string): string | undefined {
  return home === undefined ? undefined : join(home, '.postgresql', name)
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined
    throw new Failure('host.file', `Cannot read "${path}"`, { cause: error })
  }
}

/**
 * The service file of libpq, pg_service.conf (documentation, "The Connection Service File"): sections of
 * `name=value` that a URL names with `service=`.
 */
import { readFileSync } from 'node:fs'
import { errnoOf, Failure } from '../../base/failure.ts'
import { isParameterName, PARAMETERS, type Parameters } from './server-url.ts'

/** What the first of these files that has the service says of it. Fails: config.invalid, host.file. */
export function readService(service: string, paths: readonly string[]): Parameters {
  for (const path of paths) {
    const found = parseService(service, path, readIfThere(path))
    if (found !== undefined) return found
  }
  throw new Failure(
    'config.invalid',
    `Cannot find the service "${service}" (must be a section of ${paths.join(' or ')})`,
  )
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return ''
    throw new Failure('host.file', `Cannot read the service file "${path}"`, { cause: error })
  }
}

function parseService(service: string, path: string, text: string): Parameters | undefined {
  let found: Parameters | undefined
  let isInside = false
  for (const [at, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    if (line.startsWith('[')) {
      // The first section of a name counts.
      isInside = found === undefined && line === `[${service}]`
      if (isInside) found = {}
    } else if (isInside && found !== undefined) {
      const equals = line.indexOf('=')
      const name = line.slice(0, Math.max(0, equals)).trim()
      const where = `Cannot use the service "${service}": line ${at + 1} of ${path}`
      if (equals < 0) throw new Failure('config.invalid', `${where} must be name=value`)
      if (!isParameterName(name) || name === 'service')
        throw new Failure(
          'config.invalid',
          `${where} sets "${name}" (must be one of ${Object.keys(PARAMETERS).join(', ')})`,
        )
      found[name] ??= line.slice(equals + 1).trim()
    }
  }
  return found
}

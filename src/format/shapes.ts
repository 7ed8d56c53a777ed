/** Shapes shared by the JSON payloads of this room, and the one way a payload that does not fit fails. */
import * as z from 'zod'
import { parseTime } from '../base/clock.ts'
import { Failure } from '../base/failure.ts'

/** Lower-case hex of exactly `bytes` bytes. */
export function hex(bytes: number): z.ZodString {
  return z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `must be ${bytes} bytes in hex`)
}

/** A name given by a person: shops, hosts, recipients. */
export const name = z
  .string()
  .min(1)
  .max(128)
  .refine((text) => !hasControl(text), 'must not hold control characters')

/** ISO 8601 in UTC, as formatTime() writes it. */
export const time = z
  .string()
  .max(32)
  .refine((text) => text.endsWith('Z') && parseTime(text) !== undefined, 'must be a time in UTC')

/** A count or a size. */
export const count = z.int().min(0)

const versioned = z.looseObject({ version: z.int().min(1) })

/** Refuses a payload of a version above `known`, whatever its other fields. Fails: repo.newer, repo.corrupt. */
export function checkVersion(payload: unknown, known: number, what: string): void {
  const { version } = parsePayload(versioned, payload, what)
  if (version <= known) return
  const message = `Cannot read ${what}: it has version ${version} (this program knows ${known})`
  throw new Failure('repo.newer', message, { facts: { what, version } })
}

/** Fails: repo.corrupt, naming the first field that does not fit, never its value. */
export function parsePayload<T>(shape: z.ZodType<T>, payload: unknown, what: string): T {
  const result = shape.safeParse(payload)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const field = issue === undefined ? '' : issue.path.join('.')
  const subject = field === '' ? 'it' : `field "${field}"`
  const message = `Cannot read ${what}: ${subject} ${issue?.message ?? 'does not fit'}`
  throw new Failure('repo.corrupt', message, { facts: { what, field } })
}

function hasControl(text: string): boolean {
  for (let at = 0; at < text.length; at++)
    if (text.charCodeAt(at) < 0x20 || text.charCodeAt(at) === 0x7f) return true
  return false
}

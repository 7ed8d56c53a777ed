/** The one place where randomness enters: keys, salts and ids. */
import { randomBytes as systemRandomBytes } from 'node:crypto'

/** `count` bytes from the system's cryptographic generator; the caller owns them. */
export function randomBytes(count: number): Buffer {
  return systemRandomBytes(count)
}

/** `count` random bytes as lower-case hex. */
export function randomHex(count: number): string {
  return systemRandomBytes(count).toString('hex')
}

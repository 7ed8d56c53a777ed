/** A server whose clock can be set, by libfaketime; this machine's stays as it is. */
import { globSync, mkdtempSync, chmodSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface SetClock {
  /** For the server's environment. */
  readonly env: Readonly<Record<string, string>>
  /** How far it goes ahead of this machine's. */
  readonly set: (seconds: number) => void
  readonly drop: () => void
}

/** Of Debian's package; undefined if it is not installed. */
const [LIBRARY] = globSync('/usr/lib/*/faketime/libfaketime.so.1')

export const canSetClock = LIBRARY !== undefined

export function makeClock(): SetClock {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-clock-'))
  chmodSync(dir, 0o755)
  const file = join(dir, 'clock')
  const set = (seconds: number): void => writeFileSync(file, `+${seconds}s`)
  set(0)
  const env = {
    LD_PRELOAD: LIBRARY ?? '',
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  return { env, set, drop: () => rmSync(dir, { recursive: true }) }
}

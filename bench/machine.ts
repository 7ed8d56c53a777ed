/** The machine under the bench, as far as it explains numbers; nothing that names it. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import type { Machine } from './record.ts'

export function describeMachine(): Machine {
  return {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
  }
}

/** The first two processors that this process may use, as `taskset -c` takes them. */
export function firstTwoProcessors(): string {
  const status = readFileSync('/proc/self/status', 'latin1')
  const allowed = /^Cpus_allowed_list:\s+(\S+)$/m.exec(status)?.[1] ?? '0-1'
  const numbers = allowed.split(',').flatMap((range) => {
    const [low = 0, high = low] = range.split('-').map(Number)
    return Array.from({ length: Math.min(2, high - low + 1) }, (_, at) => low + at)
  })
  return numbers.slice(0, 2).join(',')
}

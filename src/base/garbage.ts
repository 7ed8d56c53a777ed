/**
 * Keeps buffer garbage small. Node's crypto and zlib give every result in a fresh buffer outside of the JS heap; V8 sees
 * little pressure and lets up to 64 MB a thread pile up, whose pages are then faulted in anew. A minor collection each
 * few megabytes costs under a millisecond, and malloc hands the same memory out again (bench: peak memory, first backup).
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Measured: half of it saves nothing more, twice as much costs 20 MB. */
const COLLECT_BYTES = 8 * 1024 * 1024

type Collect = (options: { type: 'minor' }) => void

let collect: Collect | undefined
let garbageBytes = 0

/** Tells that `bytes` of short-lived buffers were made since the last call. */
export function noteGarbage(bytes: number): void {
  garbageBytes += bytes
  if (garbageBytes < COLLECT_BYTES) return
  garbageBytes = 0
  collect ??= findCollect()
  collect({ type: 'minor' })
}

function findCollect(): Collect {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as Collect
}

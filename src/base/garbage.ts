/**
 * Keeps buffer garbage small. Node's crypto and zlib give every result in a fresh buffer outside of the JS
 * heap; V8 sees little pressure and lets up to 64 MB a thread pile up, whose pages are then faulted in anew.
 * A minor collection each few megabytes costs under a millisecond, and malloc hands the same memory out again
 * (bench: peak memory, first backup).
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** Measured: half of it saves nothing more, twice as much costs 20 MB. */
const COLLECT_BYTES = 8 * 1024 * 1024
/** A full collection of 30 MB of heap takes 15 ms. */
const COLLECT_ALL_BYTES = 256 * 1024 * 1024

type Collect = (options: { type: 'minor' | 'major' }) => void

let collect: Collect | undefined
let garbageBytes = 0
let workBytes = 0

/** Tells that `bytes` of short-lived buffers were made since the last call. */
export function noteGarbage(bytes: number): void {
  garbageBytes += bytes
  if (garbageBytes < COLLECT_BYTES) return
  garbageBytes = 0
  collect ??= findCollect()
  collect({ type: 'minor' })
}

/** Tells that `bytes` of source data went through this thread's hands: now and then the whole heap is swept. */
export function noteWork(bytes: number): void {
  workBytes += bytes
  if (workBytes < COLLECT_ALL_BYTES) return
  workBytes = 0
  collect ??= findCollect()
  collect({ type: 'major' })
}

/**
 * Keeps this process's heap near what it holds. V8 lets the young generation grow to 48 MB and the old one to
 * a multiple of what survives, as long as the machine has memory; a backup tool has no claim to it (bench:
 * growth by files, 200 000 files: 415 MB -> 272 MB at the same CPU time). Threads have limits of their own.
 */
export function boundHeap(): void {
  setFlagsFromString('--semi-space-growth-factor=1')
  setFlagsFromString('--heap-growing-percent=40')
}

function findCollect(): Collect {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as Collect
}

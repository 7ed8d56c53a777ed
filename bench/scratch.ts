/**
 * The folder in which a bench happens, on tmpfs or on disk, removed with all it holds when the process ends
 * for any reason it can see (end, failure, SIGINT, SIGTERM, SIGHUP). What a killed bench left is removed by
 * the next one.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

/** The scratch folder and the process groups that run in it, to be ended before it goes. */
export interface Scratch {
  root: string
  groups: Set<number>
}

const tmpfsRoot = '/dev/shm'
const diskRoot = '/var/tmp'
const folderName = /^backstock-bench-(\d+)$/
const memoryReserveBytes = 1_000_000_000
const removeAttemptsMax = 50
const warmBlockBytes = 4_000_000
const signals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const

/** Makes the folder on tmpfs, or fails if that cannot hold `bytes` in `files` files. */
export function openScratch(needed: { bytes: number; files: number }): Scratch {
  refuseTooSmall(needed)
  return makeScratch(tmpfsRoot, 0o700)
}

/** Makes one on disk, which other users may pass through, or fails if that has not `bytes` left. */
export function openDiskScratch(bytes: number): Scratch {
  const disk = statfsSync(diskRoot)
  const freeBytes = disk.bavail * disk.bsize
  if (freeBytes < bytes) {
    const is = `${gigabytes(freeBytes)} are free (${gigabytes(bytes)} are needed)`
    throw new Error(`Cannot bench in ${diskRoot}: ${is}`)
  }
  return makeScratch(diskRoot, 0o711)
}

function makeScratch(parent: string, mode: number): Scratch {
  removeLeftovers(parent)
  const scratch: Scratch = { root: join(parent, `backstock-bench-${process.pid}`), groups: new Set() }
  mkdirSync(scratch.root, { mode })
  process.on('exit', () => closeScratch(scratch))
  for (const [signal, exitCode] of Object.entries(signals)) process.on(signal, () => process.exit(exitCode))
  return scratch
}

/** Removes a folder inside the scratch folder, to free its memory early. */
export function removeFolder(path: string): void {
  rmSync(path, { recursive: true, force: true })
}

/**
 * Writes and removes a file of the given size. Memory that the machine hands out for the first time costs
 * several times as much as memory used before (page faults into the hypervisor), and would fall on whoever
 * comes first.
 */
export function warmMemory(scratch: Scratch, bytes: number): void {
  const path = join(scratch.root, 'warm')
  const block = Buffer.alloc(warmBlockBytes)
  const file = openSync(path, 'w')
  try {
    for (let written = 0; written < bytes; written += block.length) writeSync(file, block)
  } finally {
    closeSync(file)
    rmSync(path)
  }
}

/** Reads every file below a folder, so that nobody waits for the disk because he is the first. */
export function warmCaches(folder: string): void {
  const block = Buffer.alloc(warmBlockBytes)
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = openSync(join(entry.parentPath, entry.name), 'r')
    try {
      while (readSync(file, block) > 0);
    } finally {
      closeSync(file)
    }
  }
}

function closeScratch(scratch: Scratch): void {
  for (const group of scratch.groups) endGroup(group)
  const clock = new Int32Array(new SharedArrayBuffer(4))
  for (let attempt = 1; ; attempt++) {
    try {
      removeFolder(scratch.root)
      return
    } catch (error) {
      // A process that is just being ended may still have written a file into a folder already emptied.
      if (attempt === removeAttemptsMax) throw error
      Atomics.wait(clock, 0, 0, 100)
    }
  }
}

/** Ends a process group that the bench started; one that is already gone is what was wanted. */
export function endGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}

function removeLeftovers(parent: string): void {
  for (const name of readdirSync(parent)) {
    const owner = folderName.exec(name)?.[1]
    if (owner === undefined || isAlive(Number(owner))) continue
    process.stderr.write(`removing ${join(parent, name)}, left by a bench that was killed\n`)
    removeFolder(join(parent, name))
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !isErrno(error, 'ESRCH')
  }
}

/** tmpfs is memory: both its own limit and the memory that is free must hold what is coming. */
function refuseTooSmall(needed: { bytes: number; files: number }): void {
  const tmpfs = statfsSync(tmpfsRoot)
  const freeBytes = Math.min(tmpfs.bavail * tmpfs.bsize, memoryAvailableBytes() - memoryReserveBytes)
  if (freeBytes < needed.bytes) {
    throw new Error(
      `Cannot bench in ${tmpfsRoot}: ${gigabytes(freeBytes)} of memory are free ` +
        `(${gigabytes(needed.bytes)} are needed; --scale makes the data smaller, --only leaves measures out)`,
    )
  }
  if (tmpfs.ffree < needed.files) {
    throw new Error(
      `Cannot bench in ${tmpfsRoot}: ${tmpfs.ffree} files are free (${needed.files} are needed)`,
    )
  }
}

function memoryAvailableBytes(): number {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1]
  return Number(kibibytes) * 1024
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}

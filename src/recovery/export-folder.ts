/**
 * The folder of an export: everything is made in a hidden folder below it, made durable there, and then
 * moved up by renames, so that what lies there under its own name is whole. Below it, and not beside it, so
 * that a folder that is a mount point works too.
 */
import { closeSync, fsyncSync, openSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { displayName, pathBytes } from '../base/file-entry.ts'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { makeFolders } from '../base/folders.ts'
import { lockFile } from '../base/posix.ts'
import type { WriteBytes } from './export-tar.ts'

/** Held until endStaging() or dropStaging(). */
export interface Staging {
  /** Where it all is to lie in the end; raw. */
  readonly folder: string
  /** Where it is made. */
  readonly path: string
  readonly fd: number
  readonly madeFolder: boolean
}

const STAGING = '.backstock-export'
const WRITE_BYTES = 1024 * 1024

/**
 * Makes the folder if need be. What a killed export has left in it goes. Fails: restore.refused (something
 * is in it, or another export), restore.failed.
 */
export function beginStaging(folder: string): Staging {
  const path = `${folder}/${STAGING}`
  return shielded(folder, () => {
    const madeFolder = makeFolders(folder)
    if (readdirSync(pathBytes(folder)).some((name) => name !== STAGING))
      throw refused(folder, 'it is not empty', 'Choose an empty folder, or one that is not there yet.')
    makeFolders(path)
    const fd = openSync(pathBytes(path), 'r')
    if (!isFree(fd)) {
      closeSync(fd)
      throw refused(folder, 'another export into it is running', 'Wait for it to end.')
    }
    for (const name of namesIn(path)) rmSync(pathBytes(`${path}/${name}`), { recursive: true })
    return { folder, path, fd, madeFolder }
  })
}

/** Moves it all to its place, `last` behind all else. Durable when it returns. Fails: restore.failed. */
export function endStaging({ folder, path, fd, madeFolder }: Staging, last: string): void {
  shielded(folder, () => {
    fsyncSync(fd)
    const move = (name: string): void =>
      renameSync(pathBytes(`${path}/${name}`), pathBytes(`${folder}/${name}`))
    for (const name of namesIn(path)) if (name !== last) move(name)
    syncFolder(folder)
    move(last)
    rmdirSync(pathBytes(path))
    syncFolder(folder)
    if (madeFolder) syncFolder(`${folder}/..`)
    closeSync(fd)
  })
}

/** Takes away all that was made. Never fails: the failure before it is what counts. */
export function dropStaging({ folder, path, fd, madeFolder }: Staging): void {
  try {
    closeSync(fd)
    rmSync(pathBytes(path), { recursive: true, force: true })
    if (madeFolder) rmdirSync(pathBytes(folder))
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
  }
}

/** A new file, filled by `fill` and durable when it resolves. Fails: restore.failed, and as `fill` fails. */
export async function writeStaged(
  { folder, path }: Staging,
  name: string,
  fill: (write: WriteBytes) => Promise<void>,
): Promise<void> {
  const file = await shieldedAsync(folder, () => open(pathBytes(`${path}/${name}`), 'wx', 0o600))
  const buffer = Buffer.allocUnsafe(WRITE_BYTES)
  let filled = 0
  const put = (bytes: Uint8Array): Promise<void> =>
    shieldedAsync(folder, async () => {
      for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten
    })
  const flush = async (): Promise<void> => {
    await put(buffer.subarray(0, filled))
    filled = 0
  }
  try {
    await fill(async (bytes) => {
      if (filled + bytes.length > WRITE_BYTES) await flush()
      if (bytes.length > WRITE_BYTES) return await put(bytes)
      buffer.set(bytes, filled)
      filled += bytes.length
    })
    await flush()
    await shieldedAsync(folder, () => file.sync())
  } finally {
    await file.close()
  }
}

/** Fails: restore.failed. */
export function syncFolder(path: string): void {
  shielded(path, () => {
    const fd = openSync(pathBytes(path), 'r')
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  })
}

/** Runs `body`; what the system refuses becomes a failure that names the folder. */
export function shielded<T>(folder: string, body: () => T): T {
  try {
    return body()
  } catch (error) {
    throw asExportFailure(folder, error)
  }
}

async function shieldedAsync<T>(folder: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body()
  } catch (error) {
    throw asExportFailure(folder, error)
  }
}

function asExportFailure(folder: string, error: unknown): unknown {
  if (error instanceof Failure || errnoOf(error) === undefined) return error
  const isFull = ['ENOSPC', 'EDQUOT'].includes(errnoOf(error) ?? '')
  const is = isFull ? 'the disk is full; nothing of it was left there' : describeError(error)
  const hint = isFull
    ? 'Free space there or choose another disk, then run the same command again.'
    : 'Look at the named folder: does it exist, and may this user write to it?'
  const message = `Cannot export to "${displayName(folder)}": ${is}`
  return new Failure('restore.failed', message, {
    facts: { folder: displayName(folder), hint },
    cause: error,
  })
}

function refused(folder: string, is: string, hint: string): Failure {
  const message = `Cannot export to "${displayName(folder)}": ${is}`
  return new Failure('restore.refused', message, { facts: { folder: displayName(folder), hint } })
}

/** A file system without locks goes without. */
function isFree(fd: number): boolean {
  try {
    return lockFile(fd)
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    return true
  }
}

function namesIn(path: string): string[] {
  return readdirSync(pathBytes(path), { encoding: 'latin1' })
}

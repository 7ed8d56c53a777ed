/**
 * Key files on disk: written once with mode 0600, read with a word about who else may read them.
 * What is in them is kit.ts.
 */
import { randomHex } from '../base/random.ts'
import { link, open, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import { isAgeFile } from '../format/age.ts'
import { KEY_FILE_BYTES_MAX, parseKit, parseWriter } from './kit.ts'
import type { Kit, Writer } from './kit.ts'

export interface KeyFile<T> {
  readonly key: T
  /** What the owner of the file should hear, one sentence each. */
  readonly warnings: readonly string[]
}

/** Fails: as parseKit(), key.missing (no such file), host.file. */
export async function readKitFile(
  path: string,
  passphrase?: string,
): Promise<KeyFile<Kit> & { readonly isLocked: boolean }> {
  const { bytes, warnings } = await readKeyFile(path)
  return { key: parseKit(bytes, `"${path}"`, passphrase), warnings, isLocked: isAgeFile(bytes) }
}

/** Fails: as parseWriter(), key.missing (no such file), host.file. */
export async function readWriterFile(path: string): Promise<KeyFile<Writer>> {
  const { bytes, warnings } = await readKeyFile(path)
  return { key: parseWriter(bytes, `"${path}"`), warnings }
}

/**
 * Writes a key file (the text of a kit, an identity or a writer credential) with mode 0600.
 * Durable and whole when it resolves; a crash leaves no file of this name, or all of it.
 * Never overwrites. Fails: host.file.
 */
export async function writeKitFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomHex(4)}.tmp`
  try {
    await writeNewFile(temporary, text)
    try {
      await writeKitFileName(temporary, path, text)
    } finally {
      await rm(temporary, { force: true })
    }
    await syncFolder(dirname(path))
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    const is =
      errnoOf(cause) === 'EEXIST' ? 'it exists, and a key file is never overwritten' : describeError(cause)
    throw new Failure('host.file', `Cannot write key file "${path}": ${is}`, { facts: { path }, cause })
  }
}

/** Gives the finished file its name unless that is taken. */
async function writeKitFileName(temporary: string, path: string, text: string): Promise<void> {
  try {
    await link(temporary, path)
  } catch (error) {
    // Some file systems (FAT, some network mounts) have no hard links: then a crash may leave a cut file,
    // which parseKit() refuses.
    if (!['EPERM', 'ENOTSUP', 'ENOSYS', 'EOPNOTSUPP'].includes(errnoOf(error) ?? '')) throw error
    await writeNewFile(path, text)
  }
}

async function writeNewFile(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function readKeyFile(path: string): Promise<{ bytes: Buffer; warnings: string[] }> {
  try {
    const file = await open(path, 'r')
    try {
      return await readKeyFileOpen(file, path)
    } finally {
      await file.close()
    }
  } catch (cause) {
    const isMissing = errnoOf(cause) === 'ENOENT'
    const is = isMissing ? 'there is no such file' : describeError(cause)
    throw new Failure(isMissing ? 'key.missing' : 'host.file', `Cannot read key file "${path}": ${is}`, {
      facts: { path },
      cause,
    })
  }
}

async function readKeyFileOpen(
  file: FileHandle,
  path: string,
): Promise<{ bytes: Buffer; warnings: string[] }> {
  const { mode } = await file.stat()
  const warnings =
    (mode & 0o077) === 0 ? [] : [`Key file "${path}" may be read by other users: run chmod 600 on it.`]
  // One byte more than allowed: the parser sees that the file is too large.
  const buffer = Buffer.alloc(KEY_FILE_BYTES_MAX + 1)
  let length = 0
  for (;;) {
    const { bytesRead } = await file.read(buffer, length, buffer.length - length)
    length += bytesRead
    if (bytesRead === 0 || length === buffer.length) return { bytes: buffer.subarray(0, length), warnings }
  }
}

/**
 * What tests of the local driver share: system calls that are watched or fail, the true content of a folder,
 * other users.
 */
import { readdir } from 'node:fs/promises'
import { type LocalCalls, poolCalls } from '../../src/storage/local-calls.ts'

/** The error that a system call with this errno throws. */
export function errnoError(errno: string): Error {
  return Object.assign(new Error(`${errno}: made by a test`), { code: errno })
}

export type CallHook = (call: keyof LocalCalls, args: readonly unknown[]) => void | Promise<void>

/** The system calls, each after the hook has seen it; what the hook throws, the call throws. */
export function hookedCalls(hook: CallHook): LocalCalls {
  const c = poolCalls
  const after = async <T>(
    call: keyof LocalCalls,
    args: readonly unknown[],
    work: () => T | Promise<T>,
  ): Promise<T> => {
    await hook(call, args)
    return work()
  }
  return {
    open: (path, flags, mode) => after('open', [path, flags], () => c.open(path, flags, mode)),
    read: (file, into, position) => after('read', [file, into, position], () => c.read(file, into, position)),
    write: (file, bytes, position) =>
      after('write', [file, bytes, position], () => c.write(file, bytes, position)),
    fsync: (file) => after('fsync', [file], () => c.fsync(file)),
    fstat: (file) => after('fstat', [file], () => c.fstat(file)),
    close: (file) => after('close', [file], () => c.close(file)),
    stat: (path) => after('stat', [path], () => c.stat(path)),
    lstat: (path) => after('lstat', [path], () => c.lstat(path)),
    link: (from, to) => after('link', [from, to], () => c.link(from, to)),
    rename: (from, to) => after('rename', [from, to], () => c.rename(from, to)),
    unlink: (path) => after('unlink', [path], () => c.unlink(path)),
    mkdir: (path, mode) => after('mkdir', [path], () => c.mkdir(path, mode)),
    readdir: (path) => after('readdir', [path], () => c.readdir(path)),
  }
}

/** Everything in a folder, hidden files too, relative to it; folders end in `/`. */
export async function filesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true })
  const names = entries.map((entry) => {
    const name = `${entry.parentPath}/${entry.name}`.slice(path.length + 1)
    return entry.isDirectory() ? `${name}/` : name
  })
  return names.toSorted()
}

/**
 * Runs with the rights of a user who is not root, also when the tests are root's. Nothing else may run
 * meanwhile.
 */
export async function asPlainUser<T>(work: () => Promise<T>): Promise<T> {
  if (process.getuid?.() !== 0) return work()
  process.seteuid?.(65_534)
  try {
    return await work()
  } finally {
    process.seteuid?.(0)
  }
}

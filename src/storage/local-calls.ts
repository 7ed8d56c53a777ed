/**
 * The system calls of the local driver as one table, so that it can run them blocking or not and tests can
 * make them fail. Plain descriptors, not FileHandle: the driver opens and closes each within one function.
 */
import fs from 'node:fs'
import { promisify } from 'node:util'

type Awaitable<T> = T | Promise<T>

export interface LocalCalls {
  open(path: string, flags: number, mode?: number): Awaitable<number>
  /** How many bytes came; 0 at the end. */
  read(file: number, into: Uint8Array, position: number): Awaitable<number>
  /** How many bytes went, perhaps fewer than given. */
  write(file: number, bytes: Uint8Array, position: number): Awaitable<number>
  fsync(file: number): Awaitable<void>
  fstat(file: number): Awaitable<fs.Stats>
  close(file: number): Awaitable<void>
  /** Follows links; only for the store's own folder. */
  stat(path: string): Awaitable<fs.Stats>
  lstat(path: string): Awaitable<fs.Stats>
  link(from: string, to: string): Awaitable<void>
  rename(from: string, to: string): Awaitable<void>
  unlink(path: string): Awaitable<void>
  mkdir(path: string, mode: number): Awaitable<void>
  readdir(path: string): Awaitable<fs.Dirent[]>
}

const readFile = promisify(fs.read)
const writeFile = promisify(fs.write)
const makeFolder = promisify(fs.mkdir)
const readFolder = promisify(fs.readdir)

/** Through the thread pool: never stops the calling thread. */
export const poolCalls: LocalCalls = {
  open: promisify(fs.open),
  read: async (file, into, position) => (await readFile(file, into, 0, into.length, position)).bytesRead,
  write: async (file, bytes, position) =>
    (await writeFile(file, bytes, 0, bytes.length, position)).bytesWritten,
  fsync: promisify(fs.fsync),
  fstat: (file) => promisify(fs.fstat)(file),
  close: promisify(fs.close),
  stat: (path) => promisify(fs.stat)(path),
  lstat: (path) => promisify(fs.lstat)(path),
  link: promisify(fs.link),
  rename: promisify(fs.rename),
  unlink: promisify(fs.unlink),
  mkdir: (path, mode) => makeFolder(path, { mode }),
  readdir: (path) => readFolder(path, { withFileTypes: true }),
}

/** Stops the calling thread, at a fraction of the CPU: for worker threads that have nothing else to do. */
export const blockingCalls: LocalCalls = {
  open: fs.openSync,
  read: (file, into, position) => fs.readSync(file, into, 0, into.length, position),
  write: (file, bytes, position) => fs.writeSync(file, bytes, 0, bytes.length, position),
  fsync: fs.fsyncSync,
  fstat: (file) => fs.fstatSync(file),
  close: fs.closeSync,
  stat: (path) => fs.statSync(path),
  lstat: (path) => fs.lstatSync(path),
  link: fs.linkSync,
  rename: fs.renameSync,
  unlink: fs.unlinkSync,
  mkdir: (path, mode) => {
    fs.mkdirSync(path, { mode })
  },
  readdir: (path) => fs.readdirSync(path, { withFileTypes: true }),
}

/**
 * The calls of the C library that Node does not offer: extended attributes, holes, times in nanoseconds,
 * device nodes, locks that vanish with their process, raw directory listings. Bound through koffi on first
 * use, in each thread by itself. Not here: anything that node:fs does well.
 *
 * Paths are raw bytes in latin1 strings (file-entry.ts). No call follows a symlink in the last component.
 * What the system refuses is thrown as node:fs does it, an Error with `code` (`EPERM`), so that errnoOf()
 * reads both.
 */
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { getSystemErrorMessage, getSystemErrorName } from 'node:util'
import { displayName } from './file-entry.ts'
import { Failure } from './failure.ts'

/** A raw path, or an open descriptor. */
export type PathOrFd = string | number

type Call = (...args: (number | bigint | Buffer)[]) => number | bigint

interface Libc {
  readonly errno: () => number
  readonly calls: Map<string, Call>
  readonly bind: (prototype: string) => Call
}

/** Every prototype in use; `void *` takes a Buffer. */
const PROTOTYPES = {
  listxattr: 'int64_t llistxattr(void *path, void *list, size_t size)',
  flistxattr: 'int64_t flistxattr(int fd, void *list, size_t size)',
  getxattr: 'int64_t lgetxattr(void *path, void *name, void *value, size_t size)',
  fgetxattr: 'int64_t fgetxattr(int fd, void *name, void *value, size_t size)',
  setxattr: 'int lsetxattr(void *path, void *name, void *value, size_t size, int flags)',
  fsetxattr: 'int fsetxattr(int fd, void *name, void *value, size_t size, int flags)',
  removexattr: 'int lremovexattr(void *path, void *name)',
  fremovexattr: 'int fremovexattr(int fd, void *name)',
  lseek: 'int64_t lseek(int fd, int64_t offset, int whence)',
  utimensat: 'int utimensat(int folder, void *path, void *times, int flags)',
  futimens: 'int futimens(int fd, void *times)',
  mknod: 'int mknod(void *path, uint32_t mode, uint64_t device)',
  flock: 'int flock(int fd, int operation)',
  syncfs: 'int syncfs(int fd)',
  sync: 'void sync()',
  mallopt: 'int mallopt(int param, int value)',
  fadvise: 'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
  syncRange: 'int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)',
  fallocate: 'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  getdents: 'int64_t getdents64(int fd, void *entries, size_t size)',
  prctl: 'int prctl(int option, uint64_t value)',
} as const

// Linux numbers, equal on x86-64 and arm64.
const SEEK_DATA = 3
const SEEK_HOLE = 4
const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100
const UTIME_OMIT = 0x3ffffffen
const LOCK_EX_NB = 2 | 4
const LOCK_UN = 8
const SYNC_FILE_RANGE_WRITE = 2
const FADVISE = { sequential: 2, done: 4 } as const
const PUNCH_HOLE_KEEP_SIZE = 2 | 1
const S_IFIFO = 0o010000
const S_IFCHR = 0o020000
const S_IFBLK = 0o060000
const PR_SET_PDEATHSIG = 1
const NANOSECONDS = 1_000_000_000n

/** The system allows 64 KiB for one value and for the list of names (xattr(7)). */
const XATTR_BYTES_MAX = 65536
const DIRECTORY_BYTES = 262144

/** mallopt(3) */
const M_ARENA_MAX = -8
const M_MMAP_THRESHOLD = -3
const M_TRIM_THRESHOLD = -1
/**
 * Below it freed blocks are used again: with 256 KiB pages are faulted in anew, 5 % of the time for 10 MB
 * less.
 */
const MMAP_THRESHOLD_BYTES = 4 * 1024 * 1024
/**
 * Setting one threshold stops glibc from moving this one up by itself: the end of the heap would go back
 * and be faulted in again with every frame.
 */
const TRIM_THRESHOLD_BYTES = 16 * 1024 * 1024

let libc: Libc | undefined
let unloadable: Failure | undefined
/** Grown on first use; only ever holds bytes between two lines of one synchronous function. */
let scratch: Buffer | undefined

let allocatorIsTuned = false

/**
 * Tells glibc's malloc to keep one arena and to give large blocks back at once. Threads that work on buffers
 * of a megabyte otherwise hoard freed ones: 100 MB with two threads (bench: peak memory). Called before
 * threads start.
 */
export function tuneAllocator(): void {
  if (allocatorIsTuned || !hasPosix()) return
  allocatorIsTuned = true
  callOf('mallopt')(M_ARENA_MAX, 1)
  callOf('mallopt')(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
  callOf('mallopt')(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
}

/** Whether this system's C library can be called. */
export function hasPosix(): boolean {
  try {
    loadLibc()
    return true
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}

/** Loads the C library now rather than at the first call. Fails: host.unsupported. */
export function requirePosix(): void {
  loadLibc()
}

/** Names of the extended attributes; none where the file system knows no such thing. */
export function listXattrs(target: PathOrFd): string[] {
  const list = scratchBytes()
  const got =
    typeof target === 'number'
      ? Number(callOf('flistxattr')(target, list, XATTR_BYTES_MAX))
      : Number(callOf('listxattr')(cString(target), list, XATTR_BYTES_MAX))
  if (got === 0) return []
  if (got < 0) {
    const error = systemError('listxattr', target)
    if (error.code === 'EOPNOTSUPP' || error.code === 'ENOTSUP') return []
    throw error
  }
  return list.toString('latin1', 0, got - 1).split('\0')
}

/** The value of one attribute, or undefined if it is not there. The caller owns the bytes. */
export function getXattr(target: PathOrFd, name: string): Buffer | undefined {
  const value = scratchBytes()
  const got =
    typeof target === 'number'
      ? Number(callOf('fgetxattr')(target, cString(name), value, XATTR_BYTES_MAX))
      : Number(callOf('getxattr')(cString(target), cString(name), value, XATTR_BYTES_MAX))
  if (got >= 0) return Buffer.from(value.subarray(0, got))
  const error = systemError('getxattr', target)
  if (error.code === 'ENODATA') return undefined
  throw error
}

/** Creates or replaces one attribute. */
export function setXattr(target: PathOrFd, name: string, value: Uint8Array): void {
  // An empty Buffer may have no address: the system wants one even for length 0.
  const bytes =
    value.length === 0 ? cString('') : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  const failed =
    typeof target === 'number'
      ? callOf('fsetxattr')(target, cString(name), bytes, value.length, 0)
      : callOf('setxattr')(cString(target), cString(name), bytes, value.length, 0)
  if (failed !== 0) throw systemError('setxattr', target)
}

/** Removes one attribute; one that is not there is fine. */
export function removeXattr(target: PathOrFd, name: string): void {
  const failed =
    typeof target === 'number'
      ? callOf('fremovexattr')(target, cString(name))
      : callOf('removexattr')(cString(target), cString(name))
  if (failed === 0) return
  const error = systemError('removexattr', target)
  if (error.code !== 'ENODATA') throw error
}

/**
 * Where the next data lies at or after `offset`, or undefined if only a hole is left. Moves the file's
 * position.
 */
export function seekData(fd: number, offset: number): number | undefined {
  const found = Number(callOf('lseek')(fd, offset, SEEK_DATA))
  if (found >= 0) return found
  const error = systemError('lseek', fd)
  if (error.code === 'ENXIO') return undefined
  throw error
}

/**
 * Where the next hole begins at or after `offset`; the end of the file counts as one. Moves the file's
 * position.
 */
export function seekHole(fd: number, offset: number): number {
  const found = Number(callOf('lseek')(fd, offset, SEEK_HOLE))
  if (found < 0) throw systemError('lseek', fd)
  return found
}

/** Sets the times in nanoseconds since 1970; an undefined access time stays as it is. */
export function setTimes(target: PathOrFd, times: { atime?: bigint; mtime: bigint }): void {
  const packed = Buffer.alloc(32)
  if (times.atime === undefined) packed.writeBigInt64LE(UTIME_OMIT, 8)
  else writeTimespec(packed, 0, times.atime)
  writeTimespec(packed, 16, times.mtime)
  const failed =
    typeof target === 'number'
      ? callOf('futimens')(target, packed)
      : callOf('utimensat')(AT_FDCWD, cString(target), packed, AT_SYMLINK_NOFOLLOW)
  if (failed !== 0) throw systemError('utimensat', target)
}

/** Creates a named pipe; the process's umask takes bits from `mode`. */
export function makeFifo(path: string, mode: number): void {
  if (callOf('mknod')(cString(path), S_IFIFO | mode, 0) !== 0) throw systemError('mknod', path)
}

/** Creates a device node, which needs root; the process's umask takes bits from `mode`. */
export function makeDevice(
  path: string,
  device: { type: 'char' | 'block'; mode: number; major: number; minor: number },
): void {
  const kind = device.type === 'char' ? S_IFCHR : S_IFBLK
  const failed = callOf('mknod')(cString(path), kind | device.mode, deviceNumber(device.major, device.minor))
  if (failed !== 0) throw systemError('mknod', path)
}

/** Linux's packing of device numbers into `st_rdev` (makedev(3)). */
export function deviceNumber(major: number, minor: number): bigint {
  const low = ((BigInt(major) & 0xfffn) << 8n) | (BigInt(minor) & 0xffn)
  const high = ((BigInt(major) & ~0xfffn) << 32n) | ((BigInt(minor) & ~0xffn) << 12n)
  return low | high
}

/** The two halves of `st_rdev`. */
export function splitDevice(device: bigint): { major: number; minor: number } {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n)
  return { major: Number(major), minor: Number(minor) }
}

/**
 * Takes the exclusive lock of an open file, or returns false at once if another open file holds it. It ends
 * with closeSync() or with the process, however that dies. Children that inherit the descriptor keep it.
 */
export function lockFile(fd: number): boolean {
  if (callOf('flock')(fd, LOCK_EX_NB) === 0) return true
  const error = systemError('flock', fd)
  if (error.code === 'EAGAIN' || error.code === 'EWOULDBLOCK') return false
  throw error
}

export function unlockFile(fd: number): void {
  if (callOf('flock')(fd, LOCK_UN) !== 0) throw systemError('flock', fd)
}

/** Makes everything written to the file system of `fd` durable. Blocks the thread until it is. */
export function syncFileSystem(fd: number): void {
  if (callOf('syncfs')(fd) !== 0) throw systemError('syncfs', fd)
}

/** The same for all file systems, where none can be named; says nothing of errors (sync(2)). */
export function syncFileSystems(): void {
  callOf('sync')()
}

/**
 * Has the system send `signal` to this process when the one that started it ends, however that ends; maybe
 * several times, since each thread of a parent counts. False if `parent` has ended already: then none comes.
 * Only for the main thread.
 */
export function endWithParent(parent: number, signal: NodeJS.Signals): boolean {
  if (callOf('prctl')(PR_SET_PDEATHSIG, constants.signals[signal]) !== 0) throw systemError('prctl', parent)
  return process.ppid === parent
}

/** A hint for the page cache, never fails: `sequential` reads ahead further, `done` lets clean pages go. */
export function adviseFile(fd: number, advice: keyof typeof FADVISE): void {
  if (hasPosix()) callOf('fadvise')(fd, 0, 0, FADVISE[advice])
}

/**
 * Lets the disk begin with what was written to the file, without waiting for it: a later sync then finds
 * little left (as PostgreSQL's tools do, src/common/file_utils.c pre_sync_fname). Makes nothing durable,
 * never fails.
 */
export function startWriting(fd: number): void {
  if (hasPosix()) callOf('syncRange')(fd, 0, 0, SYNC_FILE_RANGE_WRITE)
}

/** Turns a range into a hole of zeros; false if the file system cannot. The file keeps its size. */
export function punchHole(fd: number, offset: number, length: number): boolean {
  if (callOf('fallocate')(fd, PUNCH_HOLE_KEEP_SIZE, offset, length) === 0) return true
  const error = systemError('fallocate', fd)
  if (error.code === 'EOPNOTSUPP' || error.code === 'ENOTSUP' || error.code === 'ENOSYS') return false
  throw error
}

/**
 * Hands each raw name of an open folder to `take`, in the system's order, without `.` and `..`.
 * Unlike opendirSync() it holds no list of its own and never looks at the entries (some file systems give no
 * types, and Node then asks for them by a name that it has decoded wrongly).
 */
export function readNames(fd: number, take: (name: string) => void): void {
  const entries = Buffer.allocUnsafe(DIRECTORY_BYTES)
  const getdents = callOf('getdents')
  for (;;) {
    const got = Number(getdents(fd, entries, DIRECTORY_BYTES))
    if (got < 0) throw systemError('getdents64', fd)
    if (got === 0) return
    // struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name with a NUL.
    for (let at = 0; at < got; at += entries.readUInt16LE(at + 16)) {
      const name = entries.toString('latin1', at + 19, entries.indexOf(0, at + 19))
      if (name !== '.' && name !== '..') take(name)
    }
  }
}

function writeTimespec(into: Buffer, at: number, nanoseconds: bigint): void {
  let seconds = nanoseconds / NANOSECONDS
  let rest = nanoseconds % NANOSECONDS
  if (rest < 0n) {
    rest += NANOSECONDS
    seconds -= 1n
  }
  into.writeBigInt64LE(seconds, at)
  into.writeBigInt64LE(rest, at + 8)
}

function scratchBytes(): Buffer {
  scratch ??= Buffer.allocUnsafeSlow(XATTR_BYTES_MAX)
  return scratch
}

function cString(raw: string): Buffer {
  return Buffer.from(`${raw}\0`, 'latin1')
}

/** Call at once after the refused call: `errno` belongs to the last one of this thread. */
function systemError(call: string, target: PathOrFd): NodeJS.ErrnoException {
  const errno = -loadLibc().errno()
  const code = getSystemErrorName(errno)
  const of = typeof target === 'number' ? `descriptor ${target}` : `'${displayName(target)}'`
  const error: NodeJS.ErrnoException = new Error(`${code}: ${getSystemErrorMessage(errno)}, ${call} ${of}`)
  return Object.assign(error, { code, errno, syscall: call })
}

function callOf(name: keyof typeof PROTOTYPES): Call {
  const library = libc ?? loadLibc()
  let call = library.calls.get(name)
  if (call === undefined) {
    call = library.bind(PROTOTYPES[name])
    library.calls.set(name, call)
  }
  return call
}

/** Fails: host.unsupported. */
function loadLibc(): Libc {
  if (libc !== undefined) return libc
  if (unloadable !== undefined) throw unloadable
  try {
    if (process.platform !== 'linux') throw new Error(`the system is ${process.platform}`)
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi')
    const library = koffi.load(null)
    libc = {
      errno: () => koffi.errno(),
      calls: new Map(),
      bind: (prototype) => library.func(prototype) as Call,
    }
    return libc
  } catch (error) {
    const message = 'Cannot call the C library: koffi does not load here (needs Linux on x86-64 or arm64)'
    unloadable = new Failure('host.unsupported', message, { cause: error })
    throw unloadable
  }
}

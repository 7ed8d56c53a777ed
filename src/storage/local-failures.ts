/** The one place where an errno of the local driver becomes a Failure. */
import { errnoOf, Failure, type FailureCode } from '../base/failure.ts'

/** errno -> code, what is, what to do. */
const ERRNOS: Record<string, readonly [code: FailureCode, is: string, must: string]> = {
  ENOSPC: ['storage.full', 'no space is left on its disk', 'free some, or expire old snapshots'],
  EDQUOT: ['storage.full', "this user's disk quota is used up", 'raise the quota, or expire old snapshots'],
  EFBIG: ['storage.full', 'the file would be larger than this process may write', 'raise `ulimit -f`'],
  EROFS: ['storage.readonly', 'its filesystem is mounted read-only', 'mount it read-write'],
  EACCES: ['storage.denied', 'this user may not', 'give this user the right to its folders'],
  EPERM: ['storage.denied', 'the system forbids it', 'look for an immutable flag (lsattr) or another owner'],
  ENAMETOOLONG: ['storage.denied', 'its filesystem takes no names that long', 'use another filesystem'],
  ELOOP: [
    'storage.denied',
    'a link stands in its place',
    'a store holds no links: put the file itself there',
  ],
  ENOENT: ['storage.missing', 'it is not there', 'was it deleted by hand?'],
  EIO: ['storage.offline', 'its disk fails', 'look at the kernel log and the disk'],
  EUCLEAN: ['storage.offline', 'its filesystem is damaged', 'unmount it and run fsck'],
  ESTALE: ['storage.offline', 'its server has lost the folder', 'mount it again'],
  ENOTCONN: ['storage.offline', 'its mount is not connected', 'mount it again'],
  ENODEV: ['storage.offline', 'its disk is gone', 'connect and mount it'],
  ENXIO: ['storage.offline', 'its disk is gone', 'connect and mount it'],
  EHOSTDOWN: ['storage.offline', 'its server is down', 'bring the server back'],
  EHOSTUNREACH: ['storage.offline', 'its server cannot be reached', 'look at the network'],
  ETIMEDOUT: ['storage.offline', 'its server does not answer', 'look at the server and the network'],
  EMFILE: ['storage.offline', 'this process has too many files open', 'raise `ulimit -n`'],
  ENFILE: ['storage.offline', 'this machine has too many files open', 'raise fs.file-max'],
}

/**
 * `action` and `name` make the sentence: Cannot <action> "<name>" in <location>: … Bugs and Failures pass
 * unchanged.
 */
export function localFailure(
  error: unknown,
  doing: { action: string; name: string; location: string },
): unknown {
  const errno = errnoOf(error)
  if (error instanceof Failure || errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) return error
  const unknown = ['storage.offline', `the system says ${errno}`, 'look at the disk and its mount'] as const
  const [code, is, must] = ERRNOS[errno] ?? unknown
  const { action, name, location } = doing
  const thing = name === '' ? location : `"${name}" in ${location}`
  return new Failure(code, `Cannot ${action} ${thing}: ${is} (${must})`, {
    facts: { location, name, errno },
    cause: error,
  })
}

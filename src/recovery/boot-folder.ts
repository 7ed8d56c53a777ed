/**
 * The scratch folder of a boot. Where this process is root, whatever else runs as the server's user is not
 * trusted: a link that it plants would lead what root writes or removes elsewhere. So the folder itself stays
 * root's, nobody else enters before all is restored, root's own files lie apart from those that are given
 * away, and before it is removed it is taken back.
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { describeError, errnoOf, Failure } from '../base/failure.ts'
import type { ServerUser } from './boot-programs.ts'
import { configFolder, dataFolder, socketFolder } from './boot-server.ts'

const GROUP_AND_OTHERS_WRITE = 0o022
const STICKY = 0o1000

/** Only this user may enter it. Fails: host.file, host.unsupported. */
export function makeBootFolder(scratch: string, user: ServerUser | undefined): string {
  try {
    if (user !== undefined) refuseForeign(scratch)
    const folder = mkdtempSync(join(scratch, 'backstock-boot-'))
    chmodSync(folder, 0o700)
    return folder
  } catch (error) {
    if (error instanceof Failure || errnoOf(error) === undefined) throw error
    const message = `Cannot make a folder in "${scratch}": ${describeError(error)}`
    throw new Failure('host.file', message, { cause: error })
  }
}

/** Where the tablespaces of the copy lie. */
export function tablespacesFolder(folder: string): string {
  return join(folder, 't')
}

/** Makes the folders of the server, gives it the copy, and lets it in. */
export function openBootFolder(folder: string, user: ServerUser | undefined): void {
  const [config, socket] = [configFolder({ folder }), socketFolder({ folder })]
  for (const path of [config, socket]) mkdirSync(path, { mode: 0o700 })
  if (user === undefined) return
  giveTo(socket, user)
  giveTo(dataFolder({ folder }), user)
  if (existsSync(tablespacesFolder(folder))) giveTo(tablespacesFolder(folder), user)
  for (const [path, mode] of [
    [config, 0o750],
    [folder, 0o710],
  ] as const) {
    chownSync(path, 0, user.gid)
    chmodSync(path, mode)
  }
}

/**
 * Puts what `write` leaves in an empty folder into the data folder, in the place of what is there: by names
 * alone, through no link.
 */
export function placeInData(
  folder: string,
  user: ServerUser | undefined,
  write: (folder: string) => void,
): void {
  const drafts = join(folder, 'n')
  mkdirSync(drafts, { mode: 0o700 })
  write(drafts)
  for (const name of readdirSync(drafts)) {
    const draft = join(drafts, name)
    if (user !== undefined) lchownSync(draft, user.uid, user.gid)
    renameSync(draft, join(dataFolder({ folder }), name))
  }
}

/** Ends what others may do in it, and removes it. */
export function removeBootFolder(folder: string, user: ServerUser | undefined): void {
  if (user !== undefined) takeBack(folder)
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
}

/**
 * A folder's entries are looked at only once nobody else can change them, not even who has it open: what is
 * a folder then stays one. Files stay whose they are: one with a second name elsewhere is that one too.
 */
export function takeBack(folder: string): void {
  lchownSync(folder, 0, 0)
  chmodSync(folder, 0o700)
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) takeBack(join(folder, entry.name))
}

/** The folder with all that is in it, which nobody else reaches by now. */
function giveTo(folder: string, { uid, gid }: ServerUser): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    lchownSync(join(entry.parentPath, entry.name), uid, gid)
  lchownSync(folder, uid, gid)
}

/** Who may rename what is in it could put another folder in the copy's place. Fails: host.unsupported. */
function refuseForeign(scratch: string): void {
  const { uid, mode } = statSync(scratch)
  const isShared = (mode & GROUP_AND_OTHERS_WRITE) !== 0 && (mode & STICKY) === 0
  if (uid === 0 && !isShared) return
  const is = uid === 0 ? 'others may rename what is in it' : `it belongs to user ${uid}`
  throw new Failure('host.unsupported', `Cannot make a copy in "${scratch}" as root: ${is}`, {
    facts: { hint: "Choose a folder of root's that only root writes to, or one as /tmp: --scratch FOLDER." },
  })
}

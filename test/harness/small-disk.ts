/** Disks of a few megabytes for tests, as tmpfs: only where this user may mount. */
import { execFileSync, spawnSync } from 'node:child_process'
import { statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Mounts an empty disk of `size`, such as 20m, over the folder `path`. False where that is not allowed. */
export function mountDisk(path: string, size: string): boolean {
  return spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path]).status === 0
}

/** Gives a mounted disk more room. */
export function growDisk(path: string, size: string): void {
  execFileSync('mount', ['-o', `remount,size=${size}`, path])
}

/** Leaves not a byte on it. */
export function fillDisk(path: string): void {
  const { bavail, bsize } = statfsSync(path)
  writeFileSync(join(path, 'fill'), Buffer.alloc(bavail * bsize))
}

export function unmountDisk(path: string): void {
  execFileSync('umount', [path])
}

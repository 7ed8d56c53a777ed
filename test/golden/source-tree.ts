/**
 * The little tree that the golden repository holds, in four states, and manifests: what a tree holds, to be compared.
 * All of it follows from the names of the files: no randomness, no clock.
 */
import { createCipheriv, createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { getXattr, listXattrs, setTimes, setXattr } from '../../src/base/posix.ts'
import { pathBytes } from '../../src/base/file-entry.ts'

const KIB = 1024
const MIB = 1024 * KIB
const PAGE = 8 * KIB
const MANY = 1500

/** One entry; `path` is raw (latin1, a char a byte) and relative to the tree. */
export interface ManifestEntry {
  readonly path: string
  readonly type: 'file' | 'directory' | 'symlink' | 'fifo'
  /** Octal. */
  readonly mode: string
  /** Nanoseconds. */
  readonly mtime: string
  readonly size?: number
  readonly sha256?: string
  /** Of a symlink, raw. */
  readonly target?: string
  /** Of all but the first name of a file: the first. */
  readonly linkOf?: string
  /** Values in hex. */
  readonly xattrs?: Readonly<Record<string, string>>
}

/** `bytes` that do not compress. */
function noise(seed: string, bytes: number): Buffer {
  const key = createHash('sha256').update(seed).digest().subarray(0, 16)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(bytes))
}

/** Bytes that compress to a twentieth and yet look different everywhere to a chunker: words in any order. */
function words(seed: string, bytes: number): Buffer {
  const dictionary = Buffer.from(noise(`${seed} dictionary`, 256 * 24).toString('hex'))
  const order = noise(`${seed} order`, Math.ceil(bytes / 48))
  const found = Buffer.alloc(order.length * 48)
  for (const [at, word] of order.entries()) dictionary.copy(found, at * 48, word * 48, word * 48 + 48)
  return found.subarray(0, bytes)
}

/** A page as PostgreSQL's: pd_lower, pd_upper and pd_special in order, version 4. */
function page(seed: string): Buffer {
  const made = Buffer.concat([Buffer.alloc(PAGE - 512), words(seed, 256), Buffer.alloc(256)])
  made.writeUInt16LE(24, 12)
  made.writeUInt16LE(PAGE - 512, 14)
  made.writeUInt16LE(PAGE, 16)
  made.writeUInt16LE(PAGE | 4, 18)
  return made
}

function writeAt(path: string, offset: number, bytes: Uint8Array): void {
  const file = fs.openSync(path, fs.existsSync(path) ? 'r+' : 'w')
  fs.writeSync(file, bytes, 0, bytes.length, offset)
  fs.closeSync(file)
}

/** Makes state 0 in the empty folder `dir`. */
export function makeSourceTree(dir: string): void {
  for (const folder of ['empty', 'many', 'files', 'data', 'links', 'odd']) fs.mkdirSync(`${dir}/${folder}`)
  for (let i = 0; i < MANY; i++) fs.writeFileSync(`${dir}/many/item-${i}.txt`, `item ${i}\n`)
  const files: Record<string, Buffer> = {
    empty: Buffer.alloc(0), inline: Buffer.from('small enough to lie in the tree\n'), limit: words('limit', 512),
    'above-limit': words('above', 513), small: words('small', 20 * KIB), noise: noise('noise', 96 * KIB),
    large: words('large', 3 * MIB), 'to-delete': words('delete', 5 * KIB), 'to-rename': words('rename', 9 * KIB),
  }
  for (const [name, bytes] of Object.entries(files)) fs.writeFileSync(`${dir}/files/${name}`, bytes)
  makeData(dir)
  fs.writeFileSync(`${dir}/links/first`, words('linked', 3 * KIB))
  fs.linkSync(`${dir}/links/first`, `${dir}/links/second`)
  fs.linkSync(`${dir}/links/first`, `${dir}/odd/third`)
  fs.symlinkSync('../files/small', `${dir}/links/symlink`)
  fs.symlinkSync(pathBytes('nowhere/\xff'), `${dir}/links/dangling`)
  fs.writeFileSync(pathBytes(`${dir}/odd/latin1-\xe9\xff`), 'a name that is not UTF-8\n')
  fs.writeFileSync(`${dir}/odd/Grüße ☃\n`, 'a name with a newline\n')
  fs.writeFileSync(`${dir}/odd/setuid`, 'mode\n')
  fs.chmodSync(`${dir}/odd/setuid`, 0o4750)
  fs.writeFileSync(`${dir}/odd/xattr`, 'colour\n')
  setXattr(`${dir}/odd/xattr`, 'user.colour', Buffer.from('blue'))
  setXattr(`${dir}/odd/xattr`, 'user.empty', Buffer.alloc(0))
  fs.mkdirSync(`${dir}/odd/private`, { mode: 0o700 })
  settle(dir, 0)
}

function makeData(dir: string): void {
  const pages = Array.from({ length: 48 }, (_, i) => page(`page ${i}`))
  fs.writeFileSync(`${dir}/data/16384`, Buffer.concat(pages))
  // Pages of zeros, mostly holes: more than one extent node (64 MiB).
  writeAt(`${dir}/data/16385`, 0, Buffer.concat(pages.slice(0, 4)))
  writeAt(`${dir}/data/16385`, 70 * MIB, page('far'))
  fs.truncateSync(`${dir}/data/16385`, 72 * MIB)
  writeAt(`${dir}/data/sparse`, 1 * MIB, words('sparse a', 40 * KIB))
  writeAt(`${dir}/data/sparse`, 66 * MIB + 4096, words('sparse b', 10 * KIB))
  fs.truncateSync(`${dir}/data/sparse`, 67 * MIB + 1)
  fs.writeFileSync(`${dir}/data/hole`, '')
  fs.truncateSync(`${dir}/data/hole`, 1 * MIB)
  const database = new DatabaseSync(`${dir}/data/shop.sqlite`)
  database.exec('PRAGMA page_size = 4096; CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)')
  const insert = database.prepare('INSERT INTO orders (what) VALUES (?)')
  database.exec('BEGIN')
  for (let i = 0; i < 3000; i++) insert.run(`order ${i} of ${(i * 7919) % 1000} things`)
  database.exec('COMMIT')
  database.close()
}

/** Brings state `step - 1` to state `step` (1 to 3). */
export function changeSourceTree(dir: string, step: number): void {
  const text = (path: string) => `${dir}/${path}`
  writeAt(text('files/large'), 1500 * KIB, Buffer.from(`edited ${step}`))
  for (const at of [3, 4, 17 + step]) writeAt(text('data/16384'), at * PAGE, page(`page ${at} of step ${step}`))
  writeAt(text('data/16385'), (66 + step) * MIB, page(`far ${step}`))
  fs.writeFileSync(text(`many/item-${step * 100}.txt`), `changed in step ${step}\n`)
  fs.writeFileSync(text(`many/new-${step}.txt`), 'new\n')
  fs.rmSync(text(`many/item-${step * 200}.txt`))
  fs.appendFileSync(text('files/small'), words(`small ${step}`, 2 * KIB))
  if (step === 1) {
    const database = new DatabaseSync(text('data/shop.sqlite'))
    database.exec("UPDATE orders SET what = 'sent' WHERE id IN (10, 1500)")
    database.close()
    fs.rmSync(text('files/to-delete'))
    fs.renameSync(text('files/to-rename'), text('files/renamed'))
    fs.rmSync(text('links/symlink'))
    fs.symlinkSync('../files/renamed', text('links/symlink'))
  }
  if (step === 2) {
    fs.chmodSync(text('files/inline'), 0o600)
    // The last page is cut by the end of the file.
    fs.appendFileSync(text('data/shop.sqlite'), words('page', 100))
    fs.rmSync(text('links/second'))
    for (const at of [48, 49]) writeAt(text('data/16384'), at * PAGE, page(`page ${at}`))
  }
  if (step === 3) {
    fs.mkdirSync(text('later'))
    fs.writeFileSync(text('later/file'), words('later', 3 * KIB))
    fs.truncateSync(text('data/16384'), 40 * PAGE)
  }
  settle(dir, step)
}

/** Gives what has changed since the state before (its time is not of that state) the time of this one. */
function settle(dir: string, step: number): void {
  const base = 1_700_000_000n
  for (const path of listTree(dir)) {
    const { mtimeNs } = fs.lstatSync(pathBytes(`${dir}/${path}`), { bigint: true })
    const settled = mtimeNs / 1_000_000_000n < base + 1_000_000n
    if (settled) continue
    const hash = createHash('sha256').update(path, 'latin1').digest().readUInt32LE()
    const time = (base + BigInt(step * 86400)) * 1_000_000_000n + BigInt(hash % 1_000_000_000)
    setTimes(`${dir}/${path}`, { mtime: time })
  }
}

/** Raw relative paths, folders after what is in them, by bytes. */
function listTree(dir: string, below = ''): string[] {
  const names = fs.readdirSync(pathBytes(`${dir}/${below}`), { encoding: 'latin1' }).sort()
  return names.flatMap((name) => {
    const path = `${below}${name}`
    const isFolder = fs.lstatSync(pathBytes(`${dir}/${path}`)).isDirectory()
    return isFolder ? [...listTree(dir, `${path}/`), path] : [path]
  })
}

/** What the folder `dir` (raw) holds, by path. */
export function manifestOf(dir: string): ManifestEntry[] {
  const links = new Map<string, string>()
  return listTree(dir).sort().map((path) => {
    const at = pathBytes(`${dir}/${path}`)
    const stat = fs.lstatSync(at, { bigint: true })
    const mode = (Number(stat.mode) & 0o7777).toString(8)
    const common = { path, mode, mtime: String(stat.mtimeNs) }
    if (stat.isDirectory()) return { ...common, type: 'directory' }
    if (stat.isSymbolicLink()) return { ...common, type: 'symlink', target: fs.readlinkSync(at, 'latin1') }
    const names = listXattrs(`${dir}/${path}`).filter((name) => name.startsWith('user.')).sort()
    const value = (name: string) => getXattr(`${dir}/${path}`, name)?.toString('hex') ?? ''
    const xattrs = Object.fromEntries(names.map((name) => [name, value(name)]))
    const first = links.get(`${stat.dev} ${stat.ino}`)
    if (first === undefined && stat.nlink > 1n) links.set(`${stat.dev} ${stat.ino}`, path)
    return {
      ...common, type: 'file', size: Number(stat.size),
      sha256: createHash('sha256').update(fs.readFileSync(at)).digest('hex'),
      ...(first !== undefined && { linkOf: first }), ...(names.length > 0 && { xattrs }),
    }
  })
}

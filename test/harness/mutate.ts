/** A folder of files that changes as shops' folders do, step by step from a seed. */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { hasPosix, setXattr } from '../../src/base/posix.ts'
import { noise } from './engine.ts'

const POSTGRES_PAGE_BYTES = 8192

/** A name that is not UTF-8, as a latin1 string. */
const ODD_NAME = 'caf\xe9-\xff.txt'

/** Fills an empty folder. */
export function seedFolder(path: string): void {
  mkdirSync(join(path, 'images'), { recursive: true })
  mkdirSync(join(path, 'empty'))
  for (let i = 0; i < 20; i++) writeFileSync(join(path, 'images', `${i}.jpg`), noise(i, i * 911))
  writeFileSync(join(path, 'none'), '')
  writeFileSync(Buffer.from(`${path}/${ODD_NAME}`, 'latin1'), 'odd')
  linkSync(join(path, 'images', '5.jpg'), join(path, 'hard'))
  symlinkSync('images/5.jpg', join(path, 'soft'))
  writeSparse(join(path, 'sparse'), 1)
  writePages(join(path, 'relation'), 40)
  sql(path, 'create table orders (id integer primary key, what text)')
  sqlRows(path, 300)
}

type Step = (path: string, pick: (count: number) => number, round: number) => void

const steps: Readonly<Record<string, Step>> = {
  create: (path, pick, round) =>
    writeFileSync(join(path, `new-${round}-${pick(1000)}`), noise(round, pick(30_000))),
  edit: (path, pick, round) => {
    const file = someFile(path, pick)
    const bytes = statSync(file).size
    const fd = openSync(file, 'r+')
    writeSync(fd, `round ${round}`, pick(bytes + 1))
    closeSync(fd)
  },
  append: (path, pick, round) => appendFileSync(someFile(path, pick), noise(round, pick(9000))),
  truncate: (path, pick) => {
    const file = someFile(path, pick)
    truncateSync(file, pick(statSync(file).size + 1))
  },
  rename: (path, pick, round) =>
    renameSync(someFile(path, pick), join(path, 'images', `moved-${round}-${pick(1000)}`)),
  delete: (path, pick) => rmSync(someFile(path, pick)),
  mode: (path, pick) => chmodSync(someFile(path, pick), 0o600 + pick(8)),
  xattr: (path, pick, round) => {
    if (hasPosix()) setXattr(someFile(path, pick), 'user.round', Buffer.from(String(round)))
  },
  touch: (path, pick, round) => utimesSync(someFile(path, pick), round, 1_700_000_000 + round),
  link: (path, pick, round) => linkSync(someFile(path, pick), join(path, `link-${round}-${pick(1000)}`)),
  'file to directory': (path, pick, round) => {
    const file = someFile(path, pick)
    rmSync(file)
    mkdirSync(file)
    writeFileSync(join(file, 'inside'), `was a file until ${round}`)
  },
  'directory to file': (path, _pick, round) => {
    const folders = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    const found = folders.map((entry) => entry.name).find((name) => name !== 'images')
    if (found === undefined) return
    rmSync(join(path, found), { recursive: true })
    writeFileSync(join(path, found), `was a folder until ${round}`)
  },
  'many files': (path, _pick, round) => {
    const folder = join(path, `many-${round}`)
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder)
    for (let i = 0; i < 300; i++)
      writeFileSync(join(folder, `f${i}`), i % 3 === 0 ? noise(i + round, 900) : `${i}`)
  },
  sparse: (path, _pick, round) => writeSparse(join(path, 'sparse'), round),
  sqlite: (path, pick) => sqlRows(path, pick(400)),
  relation: (path, pick) => {
    const file = join(path, 'relation')
    if (!existsSync(file)) return writePages(file, 40)
    const fd = openSync(file, 'r+')
    for (let i = 0; i < 5; i++)
      writeSync(fd, noise(pick(1 << 20), 200), 0, 200, pick(40) * POSTGRES_PAGE_BYTES + 4000)
    closeSync(fd)
  },
}

/** Changes the folder `count` times by what the seed picks; returns what was done. */
export function mutateFolder(path: string, random: () => number, round: number, count = 6): string[] {
  const names = Object.keys(steps)
  const pick = (below: number): number => Math.floor(random() * below)
  const done = Array.from({ length: count }, () => names[pick(names.length)]!)
  for (const name of done) steps[name]!(path, pick, round)
  return done
}

/** A regular file of the folder or of images, one of ours that no other step needs. */
function someFile(path: string, pick: (count: number) => number): string {
  const files = [path, join(path, 'images')].flatMap((folder) =>
    readdirSync(folder)
      .map((name) => join(folder, name))
      .filter((file) => isPlain(file)),
  )
  if (files.length > 0) return files[pick(files.length)]!
  const file = join(path, 'images', 'again')
  writeFileSync(file, 'again')
  return file
}

function isPlain(file: string): boolean {
  return !/(shop\.db|relation|sparse|\ufffd.*)$/.test(file) && lstatSync(file).isFile()
}

function sql(path: string, text: string): void {
  const database = new DatabaseSync(join(path, 'shop.db'))
  database.exec(text)
  database.close()
}

function sqlRows(path: string, count: number): void {
  sql(
    path,
    `create table if not exists orders (id integer primary key, what text);
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ${count + 1})
    insert into orders (what) select hex(randomblob(100)) from n;
    update orders set what = 'changed' where id % 37 = ${count % 37}`,
  )
}

/** Pages as PostgreSQL's look from outside: a sound header, then anything. */
function writePages(file: string, count: number): void {
  const bytes = noise(count, count * POSTGRES_PAGE_BYTES)
  for (let page = 0; page < count; page++) {
    const at = page * POSTGRES_PAGE_BYTES
    bytes.writeUInt16LE(100, at + 12)
    bytes.writeUInt16LE(3000, at + 14)
    bytes.writeUInt16LE(POSTGRES_PAGE_BYTES, at + 16)
    bytes.writeUInt16LE(POSTGRES_PAGE_BYTES | 4, at + 18)
  }
  writeFileSync(file, bytes)
}

function writeSparse(file: string, round: number): void {
  const fd = openSync(file, 'w')
  writeSync(fd, noise(round, 5000), 0, 5000, 0)
  writeSync(fd, noise(round + 1, 7000), 0, 7000, 300_000 + (round % 5) * 65_536)
  ftruncateSync(fd, 1_000_000)
  closeSync(fd)
}

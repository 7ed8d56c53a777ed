// A second reader of Backstock repositories, written from docs/format.md alone. It shares no code with src/.
//   node test/golden/reader.ts STORE_FOLDER KIT_FILE [SNAPSHOT] --to DIR    restore
//   node test/golden/reader.ts STORE_FOLDER KIT_FILE [SNAPSHOT] --refs      print the chunks it references
//   node test/golden/reader.ts STORE_FOLDER KIT_FILE --list                 print the snapshots
// Without SNAPSHOT the one of the highest counter is taken. What does not verify ends the run with an error.
import { createDecipheriv, createHash, createHmac, createPrivateKey, createPublicKey } from 'node:crypto'
import { diffieHellman, hkdfSync, verify } from 'node:crypto'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { crc32, zstdDecompressSync } from 'node:zlib'
import { Decrypter, identityToRecipient } from 'age-encryption'

type Keys = { meta: Buffer; data: Buffer; idKey: Buffer; indexKey: Buffer }
type Domain = { store: string; all: ConfigBody; id: string; writer: Buffer; any: Keys; epochs: Map<number, Keys> }
type Snapshot = { domain: Domain; name: string; sha256: string; body: SnapshotBody }
type Place = { kind: number; pack: string; number: number; class: number }
type Chunks = { idKey: Buffer; read: (id: string, ...classes: number[]) => Buffer }
type Extent = { length: number; chunk: string | null; offset: number }
type Content = { inline: Buffer; extents: Extent[]; pageBytes: number; hashes: string[] }
type Entry = ReturnType<typeof readEntry>
type Run = { n: number; sha256: string; entries: number }
type ConfigBody = { n: number; previous: string | null; repository: string; authority: string } & {
  features: { required: string[] }; domains: ConfigDomain[]; chunking: { cdc: { maxBytes: number }; pagesRunBytes: number } }
type ConfigDomain = { id: string; writer: { signing: string }; idKeyHash: string; indexKeyHash: string } & {
  epochs: { epoch: number; meta: string; data: string }[] }
type SnapshotBody = { id: string; source: string; kind: string; counter: number } & {
  previous: string | null; partial: boolean; lineage: { packSet: string; runs: Run[] }[]; root: string
  refs: string[]; epoch: number; sealed: string }

const ensure: (truth: unknown, what: string) => asserts truth = (truth, what) => {
  if (!truth) throw new Error(what)
}
const text = (value: string) => Buffer.from(value)
const hex = (value: string) => Buffer.from(value, 'hex')
const u32 = (value: number) => Buffer.from(new Uint32Array([value]).buffer)
const concat = (...parts: Buffer[]) => Buffer.concat(parts)
const sha256 = (...parts: Buffer[]) => createHash('sha256').update(concat(...parts)).digest('hex')
const hmac = (key: Buffer, data: Buffer) => createHmac('sha256', key).update(data).digest('hex')
const hkdf = (ikm: Buffer, salt: Buffer, info: Buffer) => Buffer.from(hkdfSync('sha256', ikm, salt, info, 32))

// Raw Curve25519 keys in the DER wrapping that node:crypto asks for.
const OID = { x25519: '032b656e', ed25519: '032b6570' }
const publicKey = (curve: keyof typeof OID, raw: Buffer) =>
  createPublicKey({ key: concat(hex(`302a300506${OID[curve]}032100`), raw), format: 'der', type: 'spki' })
const privateKey = (curve: keyof typeof OID, raw: Buffer) =>
  createPrivateKey({ key: concat(hex(`302e020100300506${OID[curve]}04220420`), raw), format: 'der', type: 'pkcs8' })
const publicOf = (curve: keyof typeof OID, raw: Buffer) =>
  createPublicKey(privateKey(curve, raw)).export({ format: 'der', type: 'spki' }).subarray(-32)

function openAes(key: Buffer, nonce: number, box: Buffer, aad: Buffer): Buffer {
  const aes = createDecipheriv('aes-256-gcm', key, concat(u32(nonce), Buffer.alloc(8)), { authTagLength: 16 })
  aes.setAAD(aad).setAuthTag(box.subarray(-16))
  return concat(aes.update(box.subarray(0, -16)), aes.final())
}

function openSealed(secret: Buffer, sealed: Buffer, context: Buffer): Buffer {
  const ephemeral = sealed.subarray(0, 32)
  const pair = { privateKey: privateKey('x25519', secret), publicKey: publicKey('x25519', ephemeral) }
  const kek = hkdf(diffieHellman(pair), concat(ephemeral, publicOf('x25519', secret)), context)
  return openAes(kek, 0, sealed.subarray(32), context)
}

/** Reads fields one after another and refuses to read past the end. */
class Fields {
  at = 0
  data: Buffer
  constructor(data: Buffer) {
    this.data = data
  }
  take = (length: number): Buffer => {
    ensure(this.at + length <= this.data.length, 'record is cut')
    return this.data.subarray(this.at, (this.at += length))
  }
  u8 = () => this.take(1).readUInt8()
  u16 = () => this.take(2).readUInt16LE()
  u32 = () => this.take(4).readUInt32LE()
  u64 = () => Number(this.take(8).readBigUInt64LE())
  i64 = () => this.take(8).readBigInt64LE()
  sized = () => this.take(this.varint())
  hex = (length: number) => this.take(length).toString('hex')
  id = () => this.hex(32)
  varint = (): number => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = this.u8()
      value += (byte & 127) * scale
      ensure(Number.isSafeInteger(value) && !(byte === 0 && scale > 1), 'varint is too long')
      if (byte < 128) return value
    }
  }
  list = <T>(read: () => T, count = this.varint()): T[] => Array.from({ length: count }, read)
  done = () => ensure(this.at === this.data.length, 'bytes left over')
}

/** Section 2: one signed object. */
function openSigned<Body>(
  store: string, repository: string, kind: string, name: string, key: Buffer): { body: Body; sha256: string } {
  const bytes = fs.readFileSync(join(store, name))
  const [head, payload = '', last = ''] = bytes.toString().split('\n')
  const want = `backstock 1 ${kind} ${repository} ${name} ${text(payload).length} ${sha256(text(payload))}`
  const signature = Buffer.from(last.slice(-88), 'base64')
  const signed = text(`${head}\n${payload}\n`)
  const signer = `signature ${sha256(key).slice(0, 16)} ${signature.toString('base64')}\n`
  ensure(head === want && bytes.equals(concat(signed, text(signer))), `${name}: foreign or damaged`)
  ensure(verify(null, signed, publicKey('ed25519', key), signature), `${name}: bad signature`)
  return { body: JSON.parse(payload) as Body, sha256: sha256(bytes) }
}

/** Section 3: opens the kit (an encrypted one is for `age --decrypt` first), the configs and their domains. */
async function openRepository(store: string, kitFile: string): Promise<Domain[]> {
  const find = (pattern: RegExp) => pattern.exec(fs.readFileSync(kitFile, 'utf8'))?.[1] ?? ''
  const [identity, repository] = [find(/^(AGE-SECRET-KEY-1.+)$/m), find(/^# repository: (.+)$/m)]
  const [seed, key] = [find(/^# authority-key: (.+)$/m), find(/^# authority: (.+)$/m)]
  const authority = seed === '' ? hex(key) : publicOf('ed25519', hex(seed))
  let last: { body: ConfigBody; sha256: string } | null = null
  for (let n = 1; n <= fs.readdirSync(join(store, 'config')).length; n++) {
    const next = openSigned<ConfigBody>(store, repository, 'config', `config/${n}`, authority)
    ensure(next.body.n === n && next.body.previous === (last?.sha256 ?? null), `config/${n}: broken chain`)
    last = next
  }
  ensure(last?.body.features.required.length === 0, 'no config, or features that this reader lacks')
  return Promise.all(last.body.domains.map((domain) => openDomain(store, last.body, domain, identity)))
}

/** Opens the key bundles of a domain, one for each epoch, and believes what the config vouches for. */
async function openDomain(store: string, all: ConfigBody, config: ConfigDomain, identity: string): Promise<Domain> {
  const recipient = sha256(text(await identityToRecipient(identity))).slice(0, 16)
  const age = new Decrypter()
  age.addIdentity(identity)
  const epochs = new Map<number, Keys>()
  for (const { epoch, ...publics } of config.epochs) {
    const file = fs.readFileSync(join(store, `keys/${config.id}/${epoch}/${recipient}.age`))
    const bundle = JSON.parse(await age.decrypt(file, 'text')) as Record<string, string>
    const of = (field: string) => hex(bundle[field] ?? '')
    const keys = { meta: of('metaPrivate'), data: of('dataPrivate'), idKey: of('idKey'), indexKey: of('indexKey') }
    const found = [keys.meta, keys.data].map((key) => publicOf('x25519', key).toString('hex'))
    found.push(sha256(text('backstock/1 id key'), keys.idKey), sha256(text('backstock/1 index key'), keys.indexKey))
    const want = [publics.meta, publics.data, config.idKeyHash, config.indexKeyHash]
    ensure(found.join() === want.join(), `the bundle of ${config.id}, epoch ${epoch} is not what the config says`)
    epochs.set(epoch, keys)
  }
  const any = [...epochs.values()][0] as Keys // id key and index key are the same in every epoch
  return { store, all, id: config.id, writer: hex(config.writer.signing), any, epochs }
}

/** All snapshots of a domain, verified; each names the one before it in its source by hash. */
function listSnapshots(domain: Domain): Snapshot[] {
  const folder = `d/${domain.id}/snapshots`
  const list = (name: string) => (fs.existsSync(join(domain.store, name)) ? fs.readdirSync(join(domain.store, name)) : [])
  return list(folder).flatMap((source) => {
    const chain = list(`${folder}/${source}`).map((id) => {
      const name = `${folder}/${source}/${id}`
      const signed = openSigned<SnapshotBody>(domain.store, domain.all.repository, 'snapshot', name, domain.writer)
      ensure(signed.body.source === source && signed.body.id === id, `${name}: names another snapshot`)
      return { domain, name, ...signed }
    })
    for (const { body, name } of chain) {
      const before = chain.filter((each) => each.body.counter === body.counter - 1) // a deleted one leaves a gap
      const follows = before.length === 0 || before.some(({ sha256 }) => sha256 === body.previous)
      ensure(follows, `${name}: does not follow the snapshot before it`)
    }
    return chain.sort(byCounter)
  })
}
const byCounter = (a: Snapshot, b: Snapshot) => a.body.counter - b.body.counter || (a.body.id < b.body.id ? -1 : 1)

/** Sections 4 and 6: the chunks that one snapshot can reach. */
function openChunks({ domain, body: { lineage } }: Snapshot): Chunks {
  const places = new Map<string, Place>()
  for (const { packSet, runs } of lineage) for (const run of runs) readRun(domain, packSet, run, places)
  const packs = new Map<string, (place: Place) => Buffer>()
  const read = (id: string, ...classes: number[]) => {
    const place = places.get(id)
    ensure(place && classes.includes(place.class), `chunk ${id}: not in the index, or of another class`)
    const pack = packs.get(place.pack) ?? openPack(domain, place)
    packs.set(place.pack, pack) // all that was read stays in memory: this reader is for small repositories
    const plain = pack(place)
    ensure(hmac(domain.any.idKey, plain) === id, `chunk ${id}: other content`)
    return plain
  }
  return { idKey: domain.any.idKey, read }
}

/** Section 6: adds what an index run knows to `places`. */
function readRun(domain: Domain, set: string, run: Run, places: Map<string, Place>): void {
  const name = `d/${domain.id}/index/${set}/${String(run.n).padStart(6, '0')}`
  const object = fs.readFileSync(join(domain.store, name))
  ensure(sha256(object) === run.sha256, `${name}: not the run that the snapshot names`)
  const head = new Fields(object.subarray(0, 128))
  const begin = [head.take(8).toString(), head.u16(), head.u16(), head.u32(), head.hex(16), head.hex(8), head.hex(16)]
  ensure(begin.join() === ['BKSTINDX', 1, 0, run.n, domain.all.repository, domain.id, set].join(), `${name}: foreign`)
  ensure(object.readUInt32LE(124) === crc32(object.subarray(0, 124)), `${name}: checksum`)
  const key = hkdf(domain.any.indexKey, head.take(16), text('backstock/1 index run'))
  const [packCount, superseded, entries, length] = [head.u32(), head.u32(), head.u64(), head.u64()]
  const blocks: Buffer[] = []
  for (let at = 128; at < object.length; at += 2 ** 20 + 16) {
    const block = object.subarray(at, at + 2 ** 20 + 16)
    blocks.push(openAes(key, blocks.length, block, concat(head.data, u32(blocks.length))))
  }
  const body = new Fields(concat(...blocks))
  ensure(body.data.length === length && entries === run.entries, `${name}: of another length`)
  const packs = body.list(() => [body.id(), body.u32(), body.u32(), body.u8(), body.take(3)] as const, packCount)
  body.take(superseded * 4)
  for (let i = 0; i < entries; i++) {
    const [id, pack, number, chunkClass, zero] = [body.id(), packs[body.u32()], body.u16(), body.u8(), body.u8()]
    ensure(pack && number < pack[2] && zero === 0, `${name}: an entry points nowhere`)
    places.set(id, { pack: pack[0], kind: pack[3], number, class: chunkClass })
  }
  body.done()
}

/** Section 5: the answer reads a chunk of the pack. */
function openPack(domain: Domain, { kind, pack }: Place): (place: Place) => Buffer {
  const name = `d/${domain.id}/${kind === 1 ? 'packs' : 'meta'}/${pack.slice(0, 2)}/${pack}`
  const object = fs.readFileSync(join(domain.store, name))
  ensure(sha256(object) === pack, `${name}: content does not match the name`)
  const footer = object.subarray(-256)
  const fields = new Fields(footer)
  const begin = [fields.take(8).toString(), fields.u16(), fields.u8(), fields.u8(), fields.u32()]
  const want = ['BKSTPACK', 1, 1, kind, footer.readUInt32LE(12), domain.all.repository, domain.id]
  ensure([...begin, fields.hex(16), fields.hex(8)].join() === want.join(), `${name}: foreign`)
  ensure(footer.readUInt32LE(248) === crc32(footer.subarray(0, 248)), `${name}: checksum`)
  const epoch = domain.epochs.get(footer.readUInt32LE(12))
  ensure(epoch && footer.readUInt32LE(252) === 256, `${name}: of an unknown epoch, or with a longer footer`)
  const context = concat(text('backstock/1 pack key'), footer.subarray(0, 72))
  const dek = openSealed(kind === 3 ? epoch.meta : epoch.data, footer.subarray(72, 152), context)
  fields.at = 152
  const [end, headerBytes, frameCount, chunkCount] = [fields.u64(), fields.u32(), fields.u32(), fields.u32()]
  const key = hkdf(epoch.indexKey, footer.subarray(56, 72), text('backstock/1 pack header'))
  const aad = concat(footer.subarray(0, 72), footer.subarray(152, 196))
  const header = new Fields(openAes(key, 0, object.subarray(end, end + headerBytes), aad))
  let at = 0
  const frames = header.list(() => {
    const sizes = { at, end: (at += header.u32()), plain: header.u32() }
    return { ...sizes, codec: header.u8(), class: header.u8(), chunks: header.u16() }
  }, frameCount)
  const chunks = frames.flatMap((found, frame) => {
    let inFrame = 0
    return header.list(() => ({ frame, id: header.id(), at: inFrame, end: (inFrame += header.u32()) }), found.chunks)
  })
  header.done()
  ensure(at === end && chunks.length === chunkCount && chunkCount <= 65535, `${name}: frames or chunks of another number`)
  const { cdc, pagesRunBytes } = domain.all.chunking
  const most = kind === 1 ? Math.max(cdc.maxBytes, pagesRunBytes, 320 * 1024) : 2 ** 26
  ensure(frames.every((frame) => Math.ceil(frame.class / 3) === kind && frame.plain <= most), `${name}: no such frames`)
  ensure(frames.every((frame) => frame.end - frame.at <= frame.plain + 1024), `${name}: a frame with too much stored`)
  const openFrame = (number: number, { at, end, plain: length, codec, class: of }: (typeof frames)[number]) => {
    const numbers = concat(Buffer.from([of, codec]), u32(number), u32(length))
    const bound = concat(text('BKSTFRAM\x01\0'), footer.subarray(16, 40), footer.subarray(56, 72), numbers)
    const stored = openAes(dek, number, object.subarray(at, end), bound)
    const plain = codec === 0 ? stored : zstdDecompressSync(stored, { maxOutputLength: length })
    ensure(plain.length === length, `${name}: frame of another length`)
    return plain
  }
  const opened = new Map<number, Buffer>()
  return (place) => {
    const chunk = chunks[place.number]
    const frame = frames[chunk?.frame ?? -1]
    ensure(chunk && frame?.class === place.class && frame.codec <= 1, `${name}: no such chunk`)
    const plain = opened.get(chunk.frame) ?? openFrame(chunk.frame, frame)
    opened.set(chunk.frame, plain)
    return plain.subarray(chunk.at, chunk.end)
  }
}

/** Section 7: reads a whole node, by its kind. */
function readNode<T>(chunks: Chunks, id: string, chunkClass: number, kinds: Record<number, (from: Fields) => T>): T {
  const from = new Fields(chunks.read(id, chunkClass))
  const read = kinds[from.u8()]
  ensure(read && from.u8() === 1, `node ${id}: of another kind or version`)
  const found = read(from)
  from.done()
  return found
}

function readDirectory(chunks: Chunks, id: string): Entry[] {
  return readNode(chunks, id, 4, {
    1: (leaf) => leaf.list(() => readEntry(chunks, leaf)),
    2: (of) => of.list(() => [of.sized(), of.id(), of.varint()] as const).flatMap(([, id]) => readDirectory(chunks, id)),
  })
}

function readEntry(chunks: Chunks, from: Fields) {
  const [name, type, flags, mode] = [from.sized(), from.u8(), from.varint(), from.varint()]
  const [uid, gid, mtime, ctime] = [from.varint(), from.varint(), from.i64(), from.i64()]
  const [dev, high, low, links] = [from.varint(), from.varint(), from.varint(), from.varint()]
  ensure(type >= 1 && type <= 7, 'an entry of an unknown type')
  ensure(!/^$|^\.\.?$|[\0/]/.test(name.toString('latin1')), 'a name that no directory may hold')
  const size = type === 1 ? from.varint() : 0
  const content = type === 1 ? readContent(chunks, new Fields(from.sized())) : null
  const node = type === 2 ? from.id() : null
  const target = type === 3 ? from.sized() : null
  const device = type === 5 || type === 6 ? [from.varint(), from.varint()] : null
  const xattrs = flags & 4 ? from.list(() => [from.sized(), from.sized()]) : []
  const inode = links > 1 && type !== 2 ? `${dev} ${high} ${low}` : null
  return { name, type, mode, uid, gid, mtime, ctime, inode, size, content, node, target, device, xattrs }
}

function readContent(chunks: Chunks, from: Fields): Content {
  const content: Content = { inline: Buffer.alloc(0), extents: [], pageBytes: 0, hashes: [] }
  const kind = from.data.length === 0 ? 0 : from.u8()
  ensure(kind <= 3, 'content of an unknown class')
  if (kind === 1) content.inline = from.sized()
  if (kind === 3) content.pageBytes = from.varint()
  if (kind >= 2) content.extents = readMap(chunks, from)
  if (kind === 3) content.hashes = from.list(from.id)
  from.done()
  return content
}

function readMap(chunks: Chunks, from: Fields): Extent[] {
  const depth = from.u8()
  ensure(depth <= 2, 'content of an unknown depth')
  if (depth === 0) return readExtents(from)
  const top = from.list(from.id)
  const below = (id: string) => readNode(chunks, id, 5, { 4: (ids) => ids.list(ids.id) })
  return (depth === 1 ? top : top.flatMap(below)).flatMap((id) => readNode(chunks, id, 5, { 3: readExtents }))
}

function readExtents(from: Fields): Extent[] {
  const listed = from.list(() => ({ id: from.id(), bytes: from.varint() }))
  return from.list(() => {
    const [length, ref, offset] = [from.varint(), from.varint(), from.varint()]
    const chunk = listed[ref - 1]
    ensure(ref === 0 || (chunk && offset + length <= chunk.bytes), 'an extent outside its chunk')
    return { length, chunk: chunk?.id ?? null, offset }
  })
}

/** Restores a directory; it gets its times, from the caller, after what is in it. */
function restore(chunks: Chunks, node: string, into: Buffer, links = new Map<string, Buffer>()): void {
  fs.mkdirSync(into, { recursive: true })
  for (const entry of readDirectory(chunks, node)) {
    const path = concat(into, Buffer.from('/'), entry.name)
    const first = entry.inode === null ? undefined : links.get(entry.inode)
    if (entry.inode !== null) links.set(entry.inode, first ?? path)
    if (entry.type > 3) process.stderr.write(`left out, since Node cannot make it: ${path.toString()}\n`)
    else if (first) fs.linkSync(first, path)
    if (first || entry.type > 3) continue
    if (entry.content) restoreFile(chunks, entry.size, entry.content, path)
    if (entry.target) fs.symlinkSync(entry.target, path)
    if (entry.node !== null) restore(chunks, entry.node, path, links)
    if (process.getuid?.() === 0) fs.lchownSync(path, entry.uid, entry.gid)
    if (entry.type !== 3) fs.chmodSync(path, entry.mode)
    fs.lutimesSync(path, Number(entry.mtime) / 1e9, Number(entry.mtime) / 1e9)
  }
}

function restoreFile(chunks: Chunks, size: number, content: Content, path: Buffer): void {
  const file = fs.openSync(path, 'wx+', 0o600)
  let at = fs.writeSync(file, content.inline)
  for (const { length, chunk, offset } of content.extents) {
    const bytes = chunk === null ? null : chunks.read(chunk, 1, 2, 3)
    if (bytes) ensure(fs.writeSync(file, bytes, offset, length, at) === length, 'short write')
    at += length
  }
  ensure(at === size, `${path.toString()}: content of another length`)
  fs.ftruncateSync(file, size)
  const [key, page] = [hkdf(chunks.idKey, text(''), text('backstock/1 page hash')), Buffer.alloc(content.pageBytes)]
  const leaf = (from: Fields) => {
    ensure(from.varint() === page.length, `${path.toString()}: hashes of other pages`)
    return from.list(() => from.hex(16))
  }
  for (const [i, want] of content.hashes.flatMap((id) => readNode(chunks, id, 6, { 5: leaf })).entries()) {
    const length = fs.readSync(file, page, 0, page.length, i * page.length)
    ensure(hmac(key, page.subarray(0, length)).startsWith(want), `${path.toString()}: page ${i}`)
  }
  fs.closeSync(file)
}

/** Section 8: pack id to a bitmap of the chunks referenced in it; chunk 0 is the lowest bit. */
function readRefs(chunks: Chunks, ids: string[]): Map<string, bigint> {
  const from = new Fields(Buffer.concat(ids.map((id) => chunks.read(id, 7))))
  ensure(from.u8() === 6 && from.u8() === 1, 'not a refs record')
  const found = from.u8() === 0 ? new Map<string, bigint>() : readRefs(chunks, [from.id()])
  const bitmap = () => BigInt(`0x0${Buffer.from(from.sized()).reverse().toString('hex')}`)
  for (const [pack, bits] of from.list(() => [from.id(), bitmap()] as const)) found.set(pack, (found.get(pack) ?? 0n) ^ bits)
  from.done()
  return found
}

const { values, positionals: [store = '', kitFile = '', wanted] } = parseArgs({
  allowPositionals: true, options: { to: { type: 'string' }, refs: { type: 'boolean' }, list: { type: 'boolean' } },
})
const domains = await openRepository(store, kitFile)
const snapshots = domains.flatMap(listSnapshots).sort(byCounter)
if (values.list) for (const { body } of snapshots) console.log(body.id, body.source, body.kind, body.counter)
const snapshot = wanted === undefined ? snapshots.at(-1) : snapshots.find((one) => one.body.id === wanted)
ensure(snapshot, 'no such snapshot')
const { name, body, domain } = snapshot
const chunks = openChunks(snapshot)
const context = concat(text('backstock/1 details'), hex(domain.all.repository), text(name))
const details = openSealed(domain.epochs.get(body.epoch)!.data, Buffer.from(body.sealed, 'base64'), context).toString()
if (body.partial) process.stderr.write(`not everything could be read: ${details}\n`)
if (values.refs) for (const [pack, bits] of readRefs(chunks, body.refs)) {
  const numbers = [...bits.toString(2)].reverse().flatMap((bit, number) => (bit === '1' ? [number] : []))
  if (numbers.length > 0) console.log(JSON.stringify({ pack, chunks: numbers }))
}
if (values.to !== undefined) restore(chunks, body.root, text(values.to))

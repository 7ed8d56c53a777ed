/** Trees and refs records that a broken writer made, and what credentials see that cannot read. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { encodeInline } from '../format/content.ts'
import { readHostState } from '../repo/host-folder.ts'
import { addRecipient, addWriter } from '../repo/key-changes.ts'
import { domainKeys, openRepository, writingDomain } from '../repo/keys.ts'
import { newIdentity, type Credential, type Writer } from '../repo/kit.ts'
import { check, type CheckReport } from './check.ts'
import type { FindingCode } from './check-findings.ts'
import { backUp, dropRepository, type TestRepository } from '../../test/harness/engine.ts'
import { backUpShop, makeShop, type TestShop } from '../../test/harness/lost-files.ts'
import {
  change,
  fileEntry,
  flip,
  freshCopy,
  leafOf,
  objectsOf,
  payloadOf,
  plantChunks,
  plantSnapshot,
  refsOf,
  signSnapshot,
} from '../../test/harness/tampering.ts'

let shop: TestShop
let names: string[]
let copies = 0

before(async () => {
  shop = await makeShop()
  await backUpShop(shop, ['full', 'incremental'])
  names = objectsOf(shop.repository, '/snapshots/')
})

after(() => {
  dropRepository(shop.repository)
})

function copyOf(): TestRepository {
  return freshCopy(shop.repository, `copy-${copies++}`)
}

async function run(repository: TestRepository): Promise<CheckReport> {
  return await check(repository.access, repository.host, { workers: 0, clock: shop.clock, readData: 100 })
}

function found(report: CheckReport): FindingCode[] {
  return report.findings.map(({ code }) => code).sort()
}

/** A full made by hand of one directory; `marked`: chunk numbers of its pack that the refs record names. */
async function plantFull(
  root: Buffer,
  marked: readonly number[],
  more: Buffer[] = [],
): Promise<TestRepository> {
  const repository = copyOf()
  const last = payloadOf(repository, names.at(-1) ?? '')
  const chunks = [root, ...more].map((bytes) => ({ kind: 'tree', bytes }) as const)
  const tree = await plantChunks(repository, 'tree', chunks)
  const refs = await plantChunks(repository, 'refs', [{ kind: 'refs', bytes: refsOf(tree.pack, marked) }])
  await plantSnapshot(repository, last, { tree, refs })
  return repository
}

/** What is not about the planting itself. */
function real(report: CheckReport): FindingCode[] {
  return found(report).filter((code) => code !== 'snapshot.rule')
}

describe('checkTrees()', () => {
  test('takes a planted tree that is right', async () => {
    const repository = await plantFull(leafOf([fileEntry('note', 2, encodeInline(Buffer.from('hi')))]), [0])
    assert.deepEqual(real(await run(repository)), [])
  })

  test('sees files whose content has another length or does not decode', async () => {
    const wrong = await plantFull(leafOf([fileEntry('note', 3, encodeInline(Buffer.from('hi')))]), [0])
    const report = await run(wrong)
    assert.deepEqual(real(report), ['file.corrupt'])
    assert.equal(report.findings.find(({ code }) => code === 'file.corrupt')?.files[0]?.path, '/note')
    const garbage = await plantFull(leafOf([fileEntry('note', 3, Buffer.from([9, 9]))]), [0])
    assert.deepEqual(real(await run(garbage)), ['file.corrupt'])
  })

  test('ends with trees that hold one child twice or are very deep, and says so', async () => {
    const { idKey } = await domainKeys(shop.repository.access, writingDomain(shop.repository.access).id)
    assert(idKey)
    const below = (child: Buffer, names: readonly string[]): Buffer => {
      const node = createHmac('sha256', idKey).update(child).digest()
      return leafOf(
        names.map((name) => ({ ...fileEntry(name, 0, Buffer.alloc(0)), type: 'directory', node })),
      )
    }
    for (const [levels, children] of [
      [40, ['a', 'b']],
      [5000, ['d']],
    ] as const) {
      const nodes = [leafOf([fileEntry('x', 0, Buffer.alloc(0))])]
      for (let level = 0; level < levels; level++) nodes.unshift(below(nodes[0] ?? Buffer.alloc(0), children))
      const repository = await plantFull(nodes[0] ?? Buffer.alloc(0), [0], nodes.slice(1))
      const report = await run(repository)
      assert.deepEqual(real(report), ['tree.lost'])
      const finding = report.findings.find(({ code }) => code === 'tree.lost')
      assert.match(finding?.message ?? '', /more than twice the entries/)
      assert.deepEqual(finding?.files[0]?.path, '/')
    }
  })

  test('sees trees that no run lists and nodes that are none', async () => {
    const repository = copyOf()
    await signSnapshot(repository, { ...payloadOf(repository, names.at(-1) ?? ''), root: 'ab'.repeat(32) })
    const report = await run(repository)
    assert.deepEqual(found(report), ['tree.lost'])
    assert.deepEqual(
      report.findings[0]?.files.map(({ path, below }) => [path, below]),
      [['/', true]],
    )
    assert.deepEqual(real(await run(await plantFull(Buffer.from('no node'), [0]))), ['tree.lost'])
  })

  test('compares the refs record with the tree in both directions', async () => {
    const root = leafOf([fileEntry('note', 2, encodeInline(Buffer.from('hi')))])
    assert.deepEqual(real(await run(await plantFull(root, []))), ['refs.lacking'])
    assert.deepEqual(real(await run(await plantFull(root, [0, 1], [Buffer.from('nobody needs it')]))), [
      'refs.surplus',
    ])
    const exchanged = copyOf()
    const last = payloadOf(exchanged, names[1] ?? '')
    await signSnapshot(exchanged, { ...last, refs: payloadOf(exchanged, names[0] ?? '').refs })
    assert.deepEqual(found(await run(exchanged)), ['refs.lacking', 'refs.surplus'])
  })

  test('sees a refs record that cannot be read', async () => {
    const repository = copyOf()
    const refsPack = objectsOf(repository, '/meta/').find((name) => {
      const bytes = repository.disk.get(name)?.bytes
      return bytes?.readUInt8(bytes.length - 245) === 3
    })
    change(repository, refsPack ?? '', (bytes) => flip(bytes, 3))
    const report = await run(repository)
    assert(found(report).includes('refs.corrupt'))
    assert.deepEqual(
      report.findings.flatMap(({ files }) => files),
      [],
    )
  })
})

describe('check() with credentials that cannot read', () => {
  async function opened(repository: TestRepository, credential: Credential): Promise<TestRepository> {
    return { ...repository, access: await openRepository(repository.access.store, credential) }
  }

  /** A second writer, with a full of its own. */
  async function withWriter(
    repository: TestRepository,
  ): Promise<{ writer: Writer; asWriter: TestRepository }> {
    const { access, kit } = repository
    const owner = { store: access.store, kit, clock: shop.clock }
    const { writer } = await addWriter(owner, 'web', () => Promise.resolve())
    const asWriter = await opened(repository, writer)
    await backUp(asWriter, shop.source, { kind: 'full', clock: shop.clock })
    return { writer, asWriter }
  }

  test('a janitor checks objects, refs and damage, and says what it could not', async () => {
    const repository = copyOf()
    const { access, kit, host } = repository
    const janitor = newIdentity(kit.repository, kit.authority)
    const owner = { store: access.store, kit, clock: shop.clock }
    await addRecipient(owner, { age: janitor.recipient, name: 'janitor', role: 'janitor' })
    const asJanitor = await opened(repository, janitor)
    const report = await run(asJanitor)
    assert.deepEqual(found(report), ['not-checked'])
    const { packs, packsRead, packsCompared, packsCovered } = report.coverage
    assert.deepEqual(
      [packsRead, packsCompared, packsCovered],
      [packs, packs, 0],
      'what is not opened is not proven',
    )
    assert.deepEqual(readHostState(asJanitor.host).checked, {})
    const [domain] = report.scope
    assert.deepEqual(domain?.notExamined, ['trees', 'contents'])
    assert.deepEqual(domain?.examined, ['signatures', 'index', 'checksums', 'refs'])
    const whole = await run({ ...repository, access: { ...access, opened: new Map() } })
    assert.deepEqual([whole.coverage.packsCompared, whole.coverage.packsCovered], [0, packs])
    assert.deepEqual(whole.scope[0]?.notExamined, [])
    for (const name of objectsOf(repository, '/packs/')) {
      const hurt = freshCopy(asJanitor, `janitor-${copies++}`)
      hurt.disk.delete(name)
      const seen = await run(hurt)
      const truth = await run({
        ...hurt,
        access: { ...hurt.access, ...access, store: hurt.access.store, opened: new Map() },
        host,
      })
      const snapshots = (from: CheckReport): readonly string[] =>
        from.findings.find(({ code }) => code === 'pack.missing')?.snapshots ?? []
      assert.deepEqual(snapshots(seen), snapshots(truth))
    }
  })

  test('a writer checks its own domain as far as it can', async () => {
    const repository = copyOf()
    const { writer, asWriter } = await withWriter(repository)
    assert.deepEqual(found(await run(asWriter)), ['not-checked', 'not-checked'])
    assert.deepEqual(found(await run(await opened(repository, repository.kit))), [])
    const name = objectsOf(repository, `d/${writer.domain}/packs/`)[0] ?? ''
    change(repository, name, (bytes) => flip(bytes, 500))
    const report = await run(asWriter)
    assert.deepEqual(found(report), ['not-checked', 'not-checked', 'pack.corrupt'])
    assert.equal(report.findings[0]?.snapshots.length, 1)
    const parts = ['signatures', 'index', 'checksums', 'refs', 'trees', 'contents']
    const scopes = report.scope.map(({ name: of, examined, notExamined }) => [of, examined, notExamined])
    assert.deepEqual(scopes, [
      ['host', parts.slice(0, 1), parts.slice(1)],
      ['web', parts.slice(0, 3), parts.slice(3)],
    ])
  })

  test('a writer compares another share of checksums each time', async () => {
    const repository = copyOf()
    const { writer, asWriter } = await withWriter(repository)
    const seen = new Set<string>()
    for (let round = 0; round < 8; round++) {
      await check(asWriter.access, asWriter.host, { workers: 0, clock: shop.clock, readData: 20 })
      for (const id of Object.keys(readHostState(asWriter.host).compared ?? {})) seen.add(id)
    }
    assert.equal(
      seen.size,
      objectsOf(repository, `d/${writer.domain}/`).filter((name) => /packs|meta/.test(name)).length,
    )
  })
})

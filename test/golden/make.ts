/**
 * Writes the golden repository v1 and the manifest of what its snapshots hold:
 *
 *     node test/golden/make.ts
 *
 * Only until the first release. From then on v1 is what users have, and this must not run again (README.md).
 */
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatKit } from '../../src/repo/kit.ts'
import { makeRepository } from './engine.ts'
import type { ManifestEntry } from './source-tree.ts'

/** Lists each state of a path once; `in` are the places of the snapshots that hold it. */
interface Manifest {
  readonly source: string
  readonly snapshots: readonly string[]
  readonly entries: readonly { readonly in: readonly number[]; readonly entry: ManifestEntry }[]
}

const v1 = join(import.meta.dirname, 'v1')
// Of fixed name, since the folders above the source are in the snapshots as well.
const work = join(tmpdir(), 'backstock-golden')
fs.rmSync(work, { recursive: true, force: true })
fs.mkdirSync(join(work, 'source'), { recursive: true })
const made = await makeRepository(join(work, 'repository'), join(work, 'source'), join(work, 'cache'))
fs.rmSync(v1, { recursive: true, force: true })
fs.cpSync(join(work, 'repository'), join(v1, 'repository'), { recursive: true })
const warning = '# A throw-away key for this test only. It opens nothing else.\n'
fs.writeFileSync(join(v1, 'kit.txt'), warning + formatKit(made.kit))
const held = new Map<string, number[]>()
for (const [place, { entries }] of made.snapshots.entries())
  for (const entry of entries) held.set(JSON.stringify(entry), [...(held.get(JSON.stringify(entry)) ?? []), place])
const manifest: Manifest = {
  source: join(work, 'source'),
  snapshots: made.snapshots.map(({ id }) => id),
  entries: [...held].map(([text, places]) => ({ in: places, entry: JSON.parse(text) as ManifestEntry })),
}
const lines = manifest.entries.map((line) => JSON.stringify(line)).join(',\n')
const { source, snapshots } = manifest
const head = JSON.stringify({ source, snapshots }).slice(0, -1)
fs.writeFileSync(join(v1, 'manifest.json'), `${head},"entries":[\n${lines}\n]}\n`)
fs.rmSync(work, { recursive: true })

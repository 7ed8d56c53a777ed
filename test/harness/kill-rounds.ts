/**
 * Rounds of real backups that are killed at moments by chance, on a real folder; shared by test/e2e and
 * test/long.
 */
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import { formatKit } from '../../src/repo/kit.ts'
import { openStore } from '../../src/storage/open.ts'
import {
  dropRepository,
  folderState,
  makeRepository,
  noise,
  readBack,
  seeded,
  snapshotOf,
  snapshotsOf,
  sortedState,
  type TestRepository,
} from './engine.ts'
import type { KillJob } from './kill-child.ts'
import { filesBelow } from './local-place.ts'
import { mutateFolder, seedFolder } from './mutate.ts'
import { storedTwice, verifyRepository, type KnownPacks } from './verify.ts'

/** A new repository every so many rounds: what verify() reads stays small. */
const SCENE_ROUNDS = 10
const KINDS: readonly SnapshotKind[] = ['full', 'incremental', 'incremental', 'differential', 'full']
const FILES = 100
const FILE_BYTES = 6000

export interface KillCounts {
  kills: number
  /** Runs that were over before they could be killed. */
  late: number
  /** Runs that took over packs of a killed one. */
  adoptions: number
}

interface Scene {
  readonly place: string
  readonly repository: TestRepository
  readonly known: KnownPacks
  /** Milliseconds that a whole run took. */
  runMs: number
}

export async function runKillRounds(rounds: number, seed: number): Promise<KillCounts> {
  const random = seeded(seed)
  const counts: KillCounts = { kills: 0, late: 0, adoptions: 0 }
  for (let done = 0; done < rounds; done += SCENE_ROUNDS) {
    const scene = await makeScene()
    try {
      for (let round = 0; round < Math.min(SCENE_ROUNDS, rounds - done); round++)
        await killRound(scene, random, round, counts)
      const store = scene.repository.access.store
      await store.sweep(0)
      const left = await filesBelow(join(scene.place, 'repository'))
      assert.deepEqual(
        left.filter((file) => /(^|\/)\.[^/]+$/.test(file) && !file.endsWith('/')),
        [],
        'sweep() takes what killed puts left',
      )
    } finally {
      await scene.repository.access.store.close()
      dropRepository(scene.repository)
      rmSync(scene.place, { recursive: true, force: true })
    }
  }
  return counts
}

async function makeScene(): Promise<Scene> {
  const place = mkdtempSync(join(tmpdir(), 'backstock-kill-'))
  const store = await openStore(`file://${join(place, 'repository')}`, { create: true })
  const repository = await makeRepository({ store })
  writeFileSync(join(place, 'kit'), formatKit(repository.kit))
  const path = join(place, 'data')
  mkdirSync(path)
  seedFolder(path)
  for (let i = 0; i < FILES; i++) writeFileSync(join(path, 'images', `m${i}`), noise(i + 77, FILE_BYTES))
  return { place, repository, known: new Map(), runMs: 1000 }
}

/** Kills one to three runs one after the other, looks at what is left each time, then lets one end. */
async function killRound(
  scene: Scene,
  random: () => number,
  round: number,
  counts: KillCounts,
): Promise<void> {
  const { place, repository, known } = scene
  const job: KillJob = {
    storeUrl: `file://${join(place, 'repository')}`,
    kitFile: join(place, 'kit'),
    cache: join(place, 'cache'),
    path: join(place, 'data'),
    kind: KINDS[round % KINDS.length]!,
    workers: random() < 0.5 ? 0 : 2,
  }
  const before = await snapshotsOf(repository)
  const kills = 1 + Math.floor(random() * 3)
  for (let kill = 0; kill < kills; kill++) {
    const killed = await runChild(job, random() * scene.runMs)
    counts[killed.wasKilled ? 'kills' : 'late']++
    assert.deepEqual(await verifyRepository(repository.access, known), [], `after a kill in round ${round}`)
    const ids = (await snapshotsOf(repository)).map(({ id }) => id)
    assert.deepEqual(
      ids.slice(0, before.length),
      before.map(({ id }) => id),
      'no snapshot is lost',
    )
  }
  const done = await runChild(job, undefined)
  scene.runMs = done.milliseconds
  const [, id, adopted] = /^done (\S+) (\d+)$/m.exec(done.output) ?? []
  assert.ok(id, `the run after the kills ends: ${done.output}`)
  if (adopted !== '0') counts.adoptions++
  assert.deepEqual(await verifyRepository(repository.access, known), [], `at the end of round ${round}`)
  assert.deepEqual(await storedTwice(repository.access), [])
  const now = sortedState(folderState(job.path))
  assert.deepEqual(await readBack(repository, await snapshotOf(repository, id), job.path), now)
  mutateFolder(job.path, random, round)
  for (let i = 0; i < FILES / 2; i++) {
    const file = join(job.path, 'images', `m${Math.floor(random() * FILES * 2)}`)
    rmSync(file, { recursive: true, force: true })
    writeFileSync(file, noise(round * 1000 + i, FILE_BYTES))
  }
}

/** Runs the child; kills it `afterMs` after it has begun. */
async function runChild(
  job: KillJob,
  afterMs: number | undefined,
): Promise<{ wasKilled: boolean; output: string; milliseconds: number }> {
  const script = join(import.meta.dirname, 'kill-child.ts')
  const child = spawn(process.execPath, [script, JSON.stringify(job)], { stdio: ['ignore', 'pipe', 'pipe'] })
  const texts: Buffer[] = []
  child.stdout.on('data', (text: Buffer) => texts.push(text))
  child.stderr.on('data', (text: Buffer) => texts.push(text))
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  await Promise.race([once(child.stdout, 'data'), exited])
  const begun = performance.now()
  if (afterMs !== undefined) {
    await Promise.race([sleep(afterMs), exited])
    child.kill('SIGKILL')
  }
  const [status, signal] = await exited
  const output = Buffer.concat(texts).toString()
  if (signal === null && status !== 0) throw new Error(`the child failed: ${output}`)
  return { wasKilled: signal === 'SIGKILL', output, milliseconds: performance.now() - begun }
}

/**
 * Rounds of real backups on a real folder that are killed with SIGKILL, spread over the whole length of a
 * run, and of the run that must succeed afterwards and take over what they left; shared by test/e2e and
 * test/long.
 */
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { SnapshotKind } from '../../src/format/snapshot.ts'
import { check } from '../../src/recovery/check.ts'
import { formatKit } from '../../src/repo/kit.ts'
import { localStore } from '../../src/storage/local.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import {
  aheadClock,
  dropRepository,
  folderState,
  makeRepository,
  noise,
  readBack,
  seeded,
  snapshotOf,
  snapshotsOf,
  type TestRepository,
} from './engine.ts'
import type { KillChildDone, KillJob } from './kill-child.ts'
import { filesBelow } from './local-place.ts'
import { mutateFolder, seedFolder } from './mutate.ts'
import { makeScratch } from './restores.ts'
import { storedTwice, verifyRepository, type KnownPacks } from './verify.ts'

/** A new repository every so many rounds: what is verified stays small. */
const SCENE_ROUNDS = 10
const KINDS: readonly SnapshotKind[] = ['full', 'incremental', 'incremental', 'differential', 'full']
/** Runs killed one after the other before one may end. */
const KILLS_MAX = 2
const FILES = 200
const FILE_BYTES = 6000
/** What a kill may cost in packs of data: their own heads and tails, and frames that compress less well. */
const KILL_BYTES_MAX = 16_384

export interface KillCounts {
  kills: number
  /** Runs that were over before they could be killed. */
  late: number
  /** Kills that came before the first pack was stored. */
  early: number
  /** Kills that came after the snapshot was stored. */
  committed: number
  /** Rounds whose last run took over packs of killed ones, and the bytes of these. */
  adoptions: number
  bytesAdopted: number
}

interface Scene {
  readonly place: string
  readonly repository: TestRepository
  readonly known: KnownPacks
  readonly random: () => number
  readonly counts: KillCounts
}

/**
 * Each round's first kill has its own part of the run's length: together they cover it, denser towards its
 * end, where most is put.
 */
export async function runKillRounds(
  rounds: number,
  seed: number,
  say: (progress: string) => void = () => undefined,
): Promise<KillCounts> {
  const random = seeded(seed)
  const counts: KillCounts = { kills: 0, late: 0, early: 0, committed: 0, adoptions: 0, bytesAdopted: 0 }
  const moments = shuffled(
    Array.from({ length: rounds }, (_, round) => Math.sqrt((round + random()) / rounds)),
    random,
  )
  for (let done = 0; done < rounds; done += SCENE_ROUNDS) {
    const scene = await makeScene(random, counts)
    try {
      for (const [round, moment] of moments.slice(done, done + SCENE_ROUNDS).entries())
        await killRound(scene, { round, moment })
      await scene.repository.access.store.sweep(0)
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
    say(`${Math.min(done + SCENE_ROUNDS, rounds)} of ${rounds} rounds: ${JSON.stringify(counts)}`)
  }
  return counts
}

function shuffled<T>(items: T[], random: () => number): T[] {
  for (let at = items.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1))
    ;[items[at], items[other]] = [items[other]!, items[at]!]
  }
  return items
}

async function makeScene(random: () => number, counts: KillCounts): Promise<Scene> {
  const place = makeScratch()
  const store = await localStore(join(place, 'repository'), { create: true })
  const repository = await makeRepository({ store })
  writeFileSync(join(place, 'kit'), formatKit(repository.kit))
  const path = join(place, 'data')
  mkdirSync(path)
  mkdirSync(join(place, 'cache'))
  seedFolder(path)
  for (let i = 0; i < FILES; i++) writeFileSync(join(path, 'images', `m${i}`), noise(i + 77, FILE_BYTES))
  return { place, repository, known: new Map(), random, counts }
}

/**
 * Kills up to KILLS_MAX runs one after the other, further ones in their later half, where most is put; looks
 * at what is left each time, then lets one end.
 */
async function killRound(scene: Scene, at: { round: number; moment: number }): Promise<void> {
  const { place, repository, random, counts } = scene
  const { store } = repository.access
  const job: KillJob = {
    store: join(place, 'repository'),
    kitFile: join(place, 'kit'),
    cache: join(place, 'cache'),
    path: join(place, 'data'),
    kind: KINDS[at.round % KINDS.length]!,
    workers: random() < 0.5 ? 0 : 2,
    killAtCall: 0,
  }
  const undisturbed = await rehearse(job, join(place, 'rehearsal'))
  const first = await snapshotsOf(repository)
  const packsFirst = await packsOf(store)
  let [ids, committed] = [idsOf(first), packsFirst]
  const kills = 1 + Math.floor(random() * KILLS_MAX)
  for (let kill = 0; kill < kills; kill++) {
    const wasKilled = await runKilled(job, undisturbed, kill === 0 ? at.moment : (1 + random()) / 2)
    counts[wasKilled ? 'kills' : 'late']++
    await assertSound(scene, `after kill ${kill} of round ${at.round}`)
    const idsNow = idsOf(await snapshotsOf(repository))
    assert.deepEqual(idsNow.slice(0, ids.length), ids, 'no snapshot is lost')
    const packs = await packsOf(store)
    if (idsNow.length > ids.length) committed = packs
    if (wasKilled && idsNow.length > ids.length) counts.committed++
    if (wasKilled && packs.size === packsFirst.size) counts.early++
    ids = idsNow
  }
  await endRound(scene, job, { committed, round: at.round })
  if (ids.length === first.length) {
    const bytes = dataBytesOf(await packsOf(store))
    const bytesMax = undisturbed.dataBytes + kills * KILL_BYTES_MAX
    assert.ok(
      bytes <= bytesMax,
      `after ${kills} kills there are ${bytes} bytes of data (at most ${bytesMax})`,
    )
  }
  changeFolder(job.path, random, at.round)
}

/** The run after the kills: it takes over every pack that was put since the last commit, and stores the rest. */
async function endRound(
  scene: Scene,
  job: KillJob,
  left: { committed: ReadonlyMap<string, number>; round: number },
): Promise<void> {
  const { repository, counts } = scene
  const { store } = repository.access
  const before = await packsOf(store)
  const done = doneOf(await runChild(job, undefined))
  const bytesLeft = bytesOf(before) - bytesOf(left.committed)
  assert.equal(done.adoptedPacks, before.size - left.committed.size, 'every pack that was left is taken over')
  assert.equal(done.bytesStored, bytesOf(await packsOf(store)) - bytesOf(before), 'bytes stored')
  if (done.adoptedPacks > 0) counts.adoptions++
  counts.bytesAdopted += bytesLeft
  await assertSound(scene, `at the end of round ${left.round}`)
  assert.deepEqual(await storedTwice(repository.access), [])
  const now = folderState(job.path)
  assert.deepEqual(await readBack(repository, await snapshotOf(repository, done.snapshot), job.path), now)
}

interface Rehearsal extends KillChildDone {
  /** In all packs of data that are in the store afterwards. */
  readonly dataBytes: number
}

/** The same run in a copy of everything, to its end. */
async function rehearse(job: KillJob, place: string): Promise<Rehearsal> {
  const [store, cache] = [join(place, 'repository'), join(place, 'cache')]
  try {
    cpSync(job.store, store, { recursive: true })
    cpSync(job.cache, cache, { recursive: true })
    const done = doneOf(await runChild({ ...job, store, cache }, undefined))
    const opened = await localStore(store)
    const dataBytes = dataBytesOf(await packsOf(opened))
    await opened.close()
    return { ...done, dataBytes }
  } finally {
    rmSync(place, { recursive: true, force: true })
  }
}

/** The repository as two see it who know nothing of each other. */
async function assertSound(scene: Scene, when: string): Promise<void> {
  const { access, host } = scene.repository
  assert.deepEqual(await verifyRepository(access, scene.known), [], when)
  const report = await check(access, host, { readData: 100, workers: 0, clock: aheadClock(20_000) })
  assert.deepEqual(
    report.findings.filter(({ severity }) => severity !== 'info'),
    [],
    when,
  )
}

function idsOf(snapshots: readonly { id: string }[]): string[] {
  return snapshots.map(({ id }) => id)
}

/** Bytes of every pack in the store, by name. */
async function packsOf(store: BlobStore): Promise<Map<string, number>> {
  const packs = new Map<string, number>()
  for await (const { name, bytes } of store.list('d/'))
    if (/^d\/[^/]+\/(packs|meta)\//.test(name)) packs.set(name, bytes)
  return packs
}

function bytesOf(packs: ReadonlyMap<string, number>): number {
  return [...packs.values()].reduce((sum, bytes) => sum + bytes, 0)
}

/** Of packs of data alone: a tree may be stored anew, since stamps that were racy in the killed run settle. */
function dataBytesOf(packs: ReadonlyMap<string, number>): number {
  return bytesOf(new Map([...packs].filter(([name]) => name.includes('/packs/'))))
}

function changeFolder(path: string, random: () => number, round: number): void {
  mutateFolder(path, random, round)
  for (let i = 0; i < FILES / 2; i++) {
    const file = join(path, 'images', `m${Math.floor(random() * FILES * 2)}`)
    rmSync(file, { recursive: true, force: true })
    writeFileSync(file, noise(round * 1000 + i, FILE_BYTES))
  }
}

/**
 * Runs the child and kills it at `moment` (0 to 1) of the run's length: before a system call, which any
 * machine repeats, or, where threads write to the store by themselves, by the clock. False if it ended first.
 */
async function runKilled(job: KillJob, undisturbed: Rehearsal, moment: number): Promise<boolean> {
  const { signal } =
    job.workers === 0
      ? await runChild({ ...job, killAtCall: 1 + Math.floor(moment * undisturbed.calls) }, undefined)
      : await runChild(job, moment * undisturbed.milliseconds)
  return signal === 'SIGKILL'
}

interface ChildOutcome {
  readonly signal: NodeJS.Signals | null
  readonly output: string
}

/** Runs the child; kills it `afterMs` after it has begun. */
async function runChild(job: KillJob, afterMs: number | undefined): Promise<ChildOutcome> {
  const script = join(import.meta.dirname, 'kill-child.ts')
  // Not measured for coverage: it would cost each of some hundred processes more than its backup takes.
  const env = {
    ...process.env,
    NODE_V8_COVERAGE: '',
    NODE_COMPILE_CACHE: join(job.kitFile, '..', 'compiled'),
  }
  const child = spawn(process.execPath, [script, JSON.stringify(job)], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const texts: Buffer[] = []
  child.stdout.on('data', (text: Buffer) => texts.push(text))
  child.stderr.on('data', (text: Buffer) => texts.push(text))
  const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  if (afterMs !== undefined) {
    await Promise.race([once(child.stdout, 'data'), closed])
    await Promise.race([sleep(afterMs), closed])
    child.kill('SIGKILL')
  }
  const [status, signal] = await closed
  const output = Buffer.concat(texts).toString()
  if (signal === null && status !== 0) throw new Error(`the child failed: ${output}`)
  return { signal, output }
}

function doneOf({ output }: ChildOutcome): KillChildDone {
  const [, json] = /^begun\n(\{.*\})$/.exec(output) ?? []
  assert.ok(json !== undefined, `the run ends: ${output}`)
  return JSON.parse(json) as KillChildDone
}

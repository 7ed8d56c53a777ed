/**
 * The paired rounds: in each, every peer backs up the same shop from nothing, backs it up again unchanged,
 * restores it, checks it, and backs up the next day. Within a step the peers take turns, so that what else
 * the machine does falls on all of them. Repositories are new in each round; restored trees are compared
 * with their source.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { applyDay2, undoDay2 } from '../data/day2.ts'
import { shopBytesOf, writeShop, type ShopFile } from '../data/shop.ts'
import { firstTwoProcessors } from '../machine.ts'
import { measure, type Command } from '../measure.ts'
import type { MeasureName } from '../options.ts'
import { folderBytes, type Peer, type PeerName, type Repository } from '../peers/peer.ts'
import type { Sample, Step } from '../record.ts'
import { removeFolder, warmMemory, type Scratch } from '../scratch.ts'

/** What the rounds work with; samples are appended as they come. */
export interface Rounds {
  scratch: Scratch
  peers: Peer[]
  only: Set<MeasureName>
  count: number
  files: ShopFile[]
  samples: Sample[]
  note: (text: string) => void
}

interface Turn {
  peer: PeerName
  repository: Repository
}

/** Tools do not trust the times of files that changed while, or just before, they were read. */
export const settleMs = 3_000

const measuresOfRounds: MeasureName[] = ['first', 'second', 'restore', 'check', 'day2', 'memory']

/** Whether anything was asked for that needs rounds. */
export function needsRounds(only: Set<MeasureName>): boolean {
  return measuresOfRounds.some((name) => only.has(name))
}

/** Writes the shop and goes through all rounds. Fails if a command fails or a restored file differs. */
export async function measureRounds(rounds: Rounds): Promise<void> {
  const source = join(rounds.scratch.root, 'data')
  rounds.note(`writing the shop: ${rounds.files.length} files`)
  await writeShop(source, rounds.files)
  for (let round = 1; round <= rounds.count; round++) {
    await sleep(settleMs)
    await measureRound(rounds, source, round)
  }
  removeFolder(source)
}

async function measureRound(rounds: Rounds, source: string, round: number): Promise<void> {
  const folder = join(rounds.scratch.root, 'round')
  const turns = await openTurns(rounds, source, join(folder, 'all'))
  const step = (name: Step, command: (repository: Repository) => Command) =>
    measureStep(rounds, { turns, round, step: name, command })

  await step('first', (repository) => repository.backup('full'))
  if (rounds.only.has('second')) await step('second', (repository) => repository.backup('incremental'))
  if (rounds.only.has('restore')) await measureRestore(rounds, { turns, round, source, folder })
  if (rounds.only.has('check')) await step('check', (repository) => repository.checkAllData)
  if (rounds.only.has('day2')) await measureDay2(rounds, { turns, round, source, folder })
  removeFolder(folder)
  if (needsPinning(rounds)) await measureMemory(rounds, { source, folder, round })
}

/** On a machine of two processors the first backup itself is the measure of memory. */
function needsPinning(rounds: Rounds): boolean {
  return rounds.only.has('memory') && availableParallelism() > 2
}

/** New repositories of all peers for one source. */
async function openTurns(rounds: Rounds, source: string, folder: string): Promise<Turn[]> {
  const turns: Turn[] = []
  for (const peer of rounds.peers) {
    const repository = peer.prepare({ source, folder: join(folder, peer.name) })
    await measure(rounds.scratch, repository.init)
    turns.push({ peer: peer.name, repository })
  }
  return turns
}

interface StepRun {
  turns: Turn[]
  round: number
  step: Step
  command: (repository: Repository) => Command
}

/** One turn of each peer; backups must say that they are complete. */
async function measureStep(rounds: Rounds, run: StepRun): Promise<void> {
  for (const { peer, repository } of run.turns) {
    // A peer may need as much at once: a repository or a restored tree, each as large as the shop.
    warmMemory(rounds.scratch, shopBytesOf(rounds.files))
    const bytesBefore = folderBytes(repository.storePath)
    const { usage, stdout } = await measure(rounds.scratch, run.command(repository))
    if (run.step !== 'restore' && run.step !== 'check') repository.confirm(stdout)
    const repositoryBytes = folderBytes(repository.storePath)
    const newBytes = repositoryBytes - bytesBefore
    rounds.samples.push({ step: run.step, peer, round: run.round, ...usage, repositoryBytes, newBytes })
    const seconds = `${usage.wallSeconds.toFixed(2)} s, processor ${usage.cpuSeconds.toFixed(2)} s`
    const bytes = `${(usage.rssBytes / 1e6).toFixed(0)} MB, repository +${(newBytes / 1e6).toFixed(1)} MB`
    rounds.note(`round ${run.round}/${rounds.count} ${run.step} ${peer}: ${seconds}, ${bytes}`)
  }
}

interface Scene {
  turns: Turn[]
  round: number
  source: string
  folder: string
}

/** Each tree is compared and removed before the next peer's turn: two of them would be twice the memory. */
async function measureRestore(rounds: Rounds, scene: Scene): Promise<void> {
  const target = join(scene.folder, 'restored')
  for (const turn of scene.turns) {
    mkdirSync(target)
    const command = (repository: Repository) => repository.restore(target)
    await measureStep(rounds, { turns: [turn], round: scene.round, step: 'restore', command })
    compareTrees(scene.source, join(target, scene.source), turn.peer)
    removeFolder(target)
  }
}

/** The next day, for all files and for a second repository of the database files alone. */
async function measureDay2(rounds: Rounds, scene: Scene): Promise<void> {
  const database = await openTurns(rounds, join(scene.source, 'db'), join(scene.folder, 'database'))
  for (const turn of database) await measure(rounds.scratch, turn.repository.backup('full'))
  const day = await applyDay2(scene.source, rounds.files)
  await sleep(settleMs)
  const command = (repository: Repository) => repository.backup('incremental')
  await measureStep(rounds, { turns: scene.turns, round: scene.round, step: 'day2', command })
  await measureStep(rounds, { turns: database, round: scene.round, step: 'day2-database', command })
  for (const turn of scene.turns.filter(({ peer }) => peer === 'backstock')) {
    const target = join(scene.folder, 'restored')
    mkdirSync(target)
    await measure(rounds.scratch, turn.repository.restore(target))
    compareTrees(scene.source, join(target, scene.source), turn.peer)
    removeFolder(target)
  }
  if (scene.round < rounds.count || needsPinning(rounds)) await undoDay2(scene.source, day)
}

/** First backups on two processors only, by which tools choose how many workers they start. */
async function measureMemory(
  rounds: Rounds,
  place: { source: string; folder: string; round: number },
): Promise<void> {
  const turns = await openTurns(rounds, place.source, place.folder)
  const pinned = ['taskset', '-c', firstTwoProcessors()]
  const command = (repository: Repository) => {
    const backup = repository.backup('full')
    return { ...backup, argv: [...pinned, ...backup.argv] }
  }
  await measureStep(rounds, { turns, round: place.round, step: 'memory', command })
  removeFolder(place.folder)
}

/**
 * Fails unless contents, names and metadata are equal: mode, owner, times, links, ACLs and extended
 * attributes.
 */
function compareTrees(source: string, restored: string, peer: PeerName): void {
  const flags = ['-aHAXn', '--checksum', '--delete', '--itemize-changes']
  const compared = spawnSync('rsync', [...flags, `${source}/`, `${restored}/`], { encoding: 'utf8' })
  if (compared.status !== 0) throw new Error(`Cannot compare what ${peer} restored: ${compared.stderr}`)
  if (compared.stdout === '') return
  const differences = compared.stdout.trimEnd().split('\n')
  const shown = differences.slice(0, 20).join('\n')
  throw new Error(`What ${peer} restored differs from its source in ${differences.length} places:\n${shown}`)
}

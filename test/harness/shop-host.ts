/**
 * A host with a shop on it, for end-to-end tests: a folder with a configuration, sources, a store and a
 * cache, and the program as users start it. run() starts a child; here() runs the same command line in this
 * process, which takes a tenth of the time.
 */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../src/base/clock.ts'
import { type Outcome, runHere } from './cli-world.ts'

/** bin/backstock */
export const program = fileURLToPath(new URL('../../bin/backstock', import.meta.url))

export interface ShopHost {
  readonly dir: string
  /** Of the source `media`. */
  readonly media: string
  readonly env: Readonly<Record<string, string | undefined>>
}

export interface ConfigText {
  /** Lines below `repository:`; the store and identity of the host if not said. */
  readonly repository?: string
  /** More settings of the source `media`, as YAML flow: `, exclude: ['*.tmp']`. */
  readonly media?: string
  /** More sources, each a line. */
  readonly sources?: string
}

/** A host with an empty source `media` and no repository yet. End with dropHost(). */
export function makeHost(config: ConfigText = {}): ShopHost {
  const dir = mkdtempSync(join(tmpdir(), 'backstock-host-'))
  const media = join(dir, 'media')
  mkdirSync(media)
  const env = { PATH: process.env['PATH'], BACKSTOCK_CACHE_DIR: join(dir, 'cache') }
  const host = { dir, media, env }
  writeConfig(host, config)
  return host
}

export function dropHost(host: ShopHost): void {
  rmSync(host.dir, { recursive: true, force: true })
}

export function writeConfig(host: ShopHost, config: ConfigText, name = 'backstock.yaml'): void {
  const { repository = 'store: repo, identity: identity.age', media = '', sources = '' } = config
  writeFileSync(
    join(host.dir, name),
    `shop: acme
repository: { ${repository} }
sources:
  media: { kind: files, paths: [media]${media} }
${sources}`,
  )
}

/** Names of the packs that hold contents of files, in the folder `repo` of the host. */
export function packNames(host: ShopHost): string[] {
  const names = readdirSync(join(host.dir, 'repo'), { recursive: true, encoding: 'utf8' })
  return names.filter((name) => /\/packs\/..\/./.test(name))
}

/** Writes a file of the shop. */
export function putFile(host: ShopHost, name: string, content: string | Uint8Array): void {
  const path = join(host.dir, name)
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, content)
}

/** The program in a child; `input` is its stdin. */
export function run(
  host: ShopHost,
  argv: readonly string[],
  input: string | Buffer = '',
): Outcome & { bytes: Buffer } {
  const child = spawnSync(process.execPath, [program, ...argv], {
    cwd: host.dir,
    env: host.env,
    input,
    timeout: 60_000,
    maxBuffer: 256 * 1024 ** 2,
  })
  return {
    exit: child.status ?? -1,
    stdout: child.stdout.toString(),
    stderr: child.stderr.toString(),
    bytes: child.stdout,
  }
}

/** The program as a child that goes on while the test does. */
export function start(host: ShopHost, argv: readonly string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [program, ...argv], { cwd: host.dir, env: host.env })
}

/** The same command line in this process. */
export function here(host: ShopHost, argv: readonly string[], input?: Readable): Promise<Outcome> {
  const stdin = input ?? Readable.from([])
  return runHere([...argv], { cwd: host.dir, env: host.env, clock: systemClock, stdin })
}

export type Event = Readonly<Record<string, unknown>>

/** The NDJSON events of an outcome. */
export function eventsOf(outcome: Outcome): Event[] {
  return outcome.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Event)
}

/** The one event of a type. */
export function eventOf(outcome: Outcome, type: string): Event {
  const found = eventsOf(outcome).filter((event) => event['type'] === type)
  if (found.length !== 1) {
    throw new Error(`${found.length} events of type ${type} in\n${outcome.stdout}\n${outcome.stderr}`)
  }
  return found[0] ?? {}
}

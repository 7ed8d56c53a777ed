/**
 * Runs one command of a peer and measures it: wall time by the monotonic clock around it, processor time and
 * peak memory by GNU time, whose wait4() counts the whole tree of processes that the command waited for.
 * Peak memory is that of the largest single process of the tree.
 */
import { spawn, spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { loadavg } from 'node:os'
import { join } from 'node:path'
import { endGroup, type Scratch } from './scratch.ts'

/** What to run. The environment is whole: nothing of the bench's own is added. */
export interface Command {
  argv: string[]
  env: Record<string, string>
  folder: string
}

export interface Usage {
  wallSeconds: number
  cpuSeconds: number
  rssBytes: number
  /** Load of the machine in the last minute, when the command began. */
  loadAverage: number
}

export interface Run {
  usage: Usage
  stdout: string
}

const gnuTime = '/usr/bin/time'
const outputBytesMax = 1_000_000
const errorBytesShown = 2_000
const commandSecondsMax = 3_600

/** Runs the command after a sync, and fails if it does not exit with 0. Its output may have at most 1 MB. */
export async function measure(scratch: Scratch, command: Command): Promise<Run> {
  spawnSync('sync')
  const loadAverage = loadavg()[0] ?? 0
  const paths = {
    times: join(scratch.root, 'times'),
    out: join(scratch.root, 'out'),
    err: join(scratch.root, 'err'),
  }
  const out = openSync(paths.out, 'w')
  const err = openSync(paths.err, 'w')
  try {
    const started = performance.now()
    const argv = ['-q', '-f', '%U %S %M', '-o', paths.times, '--', ...command.argv]
    const child = spawn(gnuTime, argv, {
      cwd: command.folder,
      env: command.env,
      stdio: ['ignore', out, err],
      detached: true,
    })
    const exit = await exitOf(scratch, child)
    const wallSeconds = (performance.now() - started) / 1000
    if (exit !== 0) throw new Error(failureText(command, exit, paths))
    const [user = NaN, system = NaN, kibibytes = NaN] = readFileSync(paths.times, 'latin1')
      .split(/\s/)
      .map(Number)
    const usage = { wallSeconds, cpuSeconds: user + system, rssBytes: kibibytes * 1024, loadAverage }
    if (statSync(paths.out).size > outputBytesMax)
      throw new Error(`${shown(command)} wrote too much on stdout`)
    return { usage, stdout: readFileSync(paths.out, 'utf8') }
  } finally {
    closeSync(out)
    closeSync(err)
    for (const path of Object.values(paths)) rmSync(path, { force: true })
  }
}

/** The exit code, once the process is over; a process that outstays an hour is ended. */
async function exitOf(scratch: Scratch, child: ReturnType<typeof spawn>): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  child.on('error', reject)
  child.on('close', (code) => resolve(code ?? -1))
  const group = child.pid
  if (group === undefined) return promise
  scratch.groups.add(group)
  const alarm = setTimeout(() => endGroup(group), commandSecondsMax * 1000)
  try {
    return await promise
  } finally {
    clearTimeout(alarm)
    scratch.groups.delete(group)
  }
}

function failureText(command: Command, exit: number, paths: { out: string; err: string }): string {
  const said = `${readFileSync(paths.out, 'utf8')}\n${readFileSync(paths.err, 'utf8')}`.trim()
  return `${shown(command)} ended with ${exit}:\n${said.slice(-errorBytesShown)}`
}

function shown(command: Command): string {
  return command.argv.join(' ')
}

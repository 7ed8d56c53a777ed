/**
 * Rows of docs/proof.md, out of what a run of the long tests reports: one a file of test/long, with what its
 * tests said of themselves (their diagnostics) or how they failed. Nothing in a row is written by hand.
 */
import { execFileSync } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { basename } from 'node:path'

export const PROOF_PAGE = 'docs/proof.md'

/** What node:test tells of a test, as far as a row needs it. */
export interface ProofEvent {
  readonly type: string
  readonly data: {
    readonly nesting?: number
    readonly file?: string
    readonly name?: string
    readonly message?: string
    readonly details?: { readonly duration_ms?: number; readonly error?: Error }
  }
}

/** What the tests of one file did. */
export interface Proof {
  readonly seeds: string[]
  readonly said: string[]
  readonly failures: string[]
  seconds: number
}

/** Where and on what the proofs ran. */
export interface ProofRun {
  readonly date: string
  readonly commit: string
  readonly machine: string
}

/** By the name of the test file without its endings. */
export type Proofs = Map<string, Proof>

/** Takes what an event of the run tells of a proof. */
export function noteProof(proofs: Proofs, { type, data }: ProofEvent): void {
  const { nesting, file, name = '', message = '', details } = data
  if (nesting !== 0 || file === undefined) return
  const key = basename(file, '.test.ts')
  const proof = proofs.get(key) ?? { seeds: [], said: [], failures: [], seconds: 0 }
  if (type === 'test:pass' || type === 'test:fail') {
    proofs.set(key, proof)
    proof.seconds += (details?.duration_ms ?? 0) / 1000
    const seed = /\bSEED=(\d+)/.exec(name)?.[1]
    if (seed !== undefined && !proof.seeds.includes(seed)) proof.seeds.push(seed)
  }
  if (type === 'test:fail') {
    const { error } = details ?? {}
    const cause = error?.cause instanceof Error ? error.cause : error
    proof.failures.push(`${name}: ${cause?.message ?? 'no reason is known'}`)
  }
  const isClosing = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /.test(message)
  if (type === 'test:diagnostic' && !isClosing) proofs.get(key)?.said.push(message)
}

/** Rows of the table, in the order of the proofs. */
export function proofRows(proofs: Proofs, run: ProofRun): string[] {
  return [...proofs].map(([name, { seeds, said, failures, seconds }]) => {
    const outcome = failures.length === 0 ? 'passed' : 'FAILED'
    const result = [`${outcome} in ${Math.round(seconds)} s`, ...said, ...failures].join('; ')
    const cells = [run.date, run.commit, name, run.machine, seeds.join(', ') || '–', result]
    return `| ${cells.map((cell) => cell.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|')).join(' | ')} |`
  })
}

/** Appends rows to the page, which ends with its table. */
export function recordProofs(rows: readonly string[], page = PROOF_PAGE): void {
  appendFileSync(page, rows.map((row) => `${row}\n`).join(''))
}

/** `began` as a row names it: a proof of which nobody can say what was tested says so. */
export function settleRun(began: ProofRun, ended: ProofRun): ProofRun {
  if (began.commit === ended.commit) return began
  return { ...began, commit: `${began.commit}, ${ended.commit} at the end` }
}

/** This moment, commit and machine; a tree with changes that are not committed says so. */
export function describeRun(): ProofRun {
  const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim()
  const isChanged = git('status', '--porcelain') !== ''
  const gib = Math.round(totalmem() / 1024 ** 3)
  const processor = `${availableParallelism()} × ${cpus()[0]?.model.trim() ?? 'unknown'}`
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: `${git('rev-parse', '--short', 'HEAD')}${isChanged ? ' and changes' : ''}`,
    machine: `${processor}, ${gib} GiB, Linux ${release()}`,
  }
}

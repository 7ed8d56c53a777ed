/**
 * The one command: every check in order, then every test; stops at the first step that fails.
 *
 * ```
 * npm test                            all checks, all tests, the coverage floor
 * npm test -- packs                   only test files whose path has "packs" in it: no checks, no coverage
 * npm test -- packs --name 'torn'     and of those only tests whose name matches
 * npm run check                       all checks, no tests
 * npm run test:long                   only test/long, with the full counts; prints rows for docs/proof.md
 * npm run test:long -- --record       and adds them to it
 * ```
 *
 * Not a test framework: node:test runs the tests, this file chooses them and orders what is printed.
 * The closing lines (`ℹ tests N` and so on) always come last. With CI=true a skipped test is a failure.
 */
import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { run } from 'node:test'
import type { EventData } from 'node:test'
import { spec } from 'node:test/reporters'
import { parseArgs } from 'node:util'
import {
  describeRun,
  noteProof,
  PROOF_PAGE,
  proofRows,
  type ProofEvent,
  type ProofRun,
  type Proofs,
  recordProofs,
  settleRun,
} from './proof.ts'

/** Scripts of package.json that run before the tests, cheapest first. */
const CHECKS = ['typecheck', 'lint', 'format:check', 'tidy', 'knip']

const TEST_FILES = ['src/**/*.test.ts', 'test/**/*.test.ts', 'tools/**/*.test.ts']
const LONG_TEST_FILES = ['test/long/**/*.test.ts']

/** Least share of lines of src that the tests must reach, in percent. The only place where this is set. */
const COVERED_LINES_PERCENT_MIN = 80

/** A test that takes longer has hung, unless it sets a `timeout` of its own. */
const TEST_TIMEOUT_MS = 120_000
const LONG_TEST_TIMEOUT_MS = 3_600_000
/** The whole run is given up when no test starts, ends or prints for this long. */
const SILENCE_MS_MAX = 600_000

const ROOT = join(import.meta.dirname, '..')

interface Selection {
  files: string[]
  name: string | undefined
  coverage: boolean
  timeoutMs: number
}

interface Outcome {
  closing: string[]
  skipped: string[]
  success: boolean
  coverage: CoverageSummary | undefined
  proofs: Proofs
}

type CoverageSummary = EventData.TestCoverage['summary']

process.exitCode = await main()

async function main(): Promise<number> {
  process.chdir(ROOT)
  const { values, positionals } = parseArgs({
    options: {
      checks: { type: 'boolean' },
      long: { type: 'boolean' },
      name: { type: 'string' },
      record: { type: 'boolean' },
    },
    allowPositionals: true,
  })
  const long = values.long === true
  const everything = !long && positionals.length === 0 && values.name === undefined

  const files = testFiles(long, positionals)
  if (everything) for (const check of CHECKS) if (!runCheck(check)) return 1
  if (values.checks === true) return 0
  const isSample = process.env['LONG_PERCENT'] !== undefined || values.name !== undefined
  if (values.record === true && (!long || isSample))
    return complain('only a whole run of the long tests can be recorded (no LONG_PERCENT, no --name)')
  if (files.length === 0) return complain(`no test file matches ${positionals.join(' ') || 'the patterns'}`)

  header(`tests: ${files.length} files`)
  const timeoutMs = long ? LONG_TEST_TIMEOUT_MS : TEST_TIMEOUT_MS
  const began = long ? describeRun() : undefined
  const outcome = await runTests({ files, name: values.name, coverage: everything, timeoutMs })
  if (outcome.coverage !== undefined) printCoverage(outcome.coverage)
  const complaints = judge(outcome)
  if (began !== undefined) reportProofs(outcome.proofs, began, values.record === true)
  for (const complaint of complaints) complain(complaint)
  for (const line of outcome.closing) console.log(`ℹ ${line}`)
  return outcome.success && complaints.length === 0 ? 0 : 1
}

function testFiles(long: boolean, patterns: string[]): string[] {
  const files = globSync(long ? LONG_TEST_FILES : TEST_FILES, { exclude: long ? [] : LONG_TEST_FILES })
  const chosen =
    patterns.length === 0 ? files : files.filter((file) => patterns.some((p) => file.includes(p)))
  return chosen.sort()
}

/** Runs one script of package.json by this very Node, so that one place says what a check is. */
function runCheck(script: string): boolean {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
  const command = scripts[script]
  if (command === undefined) throw new Error(`package.json has no script "${script}"`)
  header(`${script}: ${command}`)
  const path = [dirname(process.execPath), join(ROOT, 'node_modules/.bin'), process.env['PATH']].join(
    delimiter,
  )
  const { status } = spawnSync(command, {
    shell: true,
    stdio: 'inherit',
    env: { ...process.env, PATH: path },
  })
  if (status !== 0) complain(`${script} failed; "npm run ${script}" runs this step alone`)
  return status === 0
}

async function runTests(selection: Selection): Promise<Outcome> {
  const outcome: Outcome = {
    closing: [],
    skipped: [],
    success: false,
    coverage: undefined,
    proofs: new Map(),
  }
  const silence = new AbortController()
  const watch = setTimeout(() => {
    complain(`no test started, ended or printed for ${SILENCE_MS_MAX / 1000} seconds: the run is given up`)
    silence.abort()
  }, SILENCE_MS_MAX)

  const events = run({
    files: selection.files,
    concurrency: availableParallelism(),
    timeout: selection.timeoutMs,
    signal: silence.signal,
    ...(selection.name === undefined ? {} : { testNamePatterns: [selection.name] }),
    coverage: selection.coverage,
    coverageIncludeGlobs: ['src/**'],
    coverageExcludeGlobs: ['**/*.test.ts'],
  })
  const shown = async function* (): AsyncGenerator<TestEvent> {
    for await (const event of events as AsyncIterable<TestEvent>) {
      watch.refresh()
      noteProof(outcome.proofs, event)
      if (!keepForLater(event, outcome)) yield event
    }
  }
  for await (const text of Readable.from(shown()).compose(spec)) process.stdout.write(String(text))
  clearTimeout(watch)
  return outcome
}

interface TestEvent extends ProofEvent {
  readonly data: ProofEvent['data'] & { readonly skip?: string | boolean }
}

/**
 * Takes out of the stream what is printed at the end or judged; true when the reporter must not see the
 * event.
 */
function keepForLater({ type, data }: TestEvent, outcome: Outcome): boolean {
  if (type === 'test:coverage') {
    outcome.coverage = (data as EventData.TestCoverage).summary
    return true
  }
  if (type === 'test:summary' && data.file === undefined)
    outcome.success = (data as EventData.TestSummary).success
  if (type === 'test:pass' && data.skip !== undefined && data.skip !== false) {
    outcome.skipped.push(`${data.name}${typeof data.skip === 'string' ? ` (${data.skip})` : ''}`)
  }
  const closing = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /
  if (type !== 'test:diagnostic' || data.nesting !== 0 || !closing.test(data.message ?? '')) return false
  outcome.closing.push(data.message ?? '')
  return true
}

/** Why the run fails although each test passed. */
function judge({ skipped, coverage }: Outcome): string[] {
  const complaints: string[] = []
  if (process.env['CI'] === 'true' && skipped.length > 0) {
    complaints.push(`with CI=true every test must run, but ${skipped.length} skipped: ${skipped.join('; ')}`)
  }
  if (coverage !== undefined && coverage.totals.coveredLinePercent < COVERED_LINES_PERCENT_MIN) {
    const reached = coverage.totals.coveredLinePercent.toFixed(1)
    complaints.push(`tests reach ${reached} % of the lines of src (at least ${COVERED_LINES_PERCENT_MIN})`)
  }
  return complaints
}

/** What a sample showed is printed too; the rows then say nothing of the full counts. */
function reportProofs(proofs: Proofs, began: ProofRun, isRecorded: boolean): void {
  const rows = proofRows(proofs, settleRun(began, describeRun()))
  header(isRecorded ? `added to ${PROOF_PAGE}` : `rows for ${PROOF_PAGE} (--record adds them)`)
  for (const row of rows) console.log(row)
  if (isRecorded) recordProofs(rows)
}

function printCoverage({ totals, files }: CoverageSummary): void {
  const lines = totals.coveredLinePercent.toFixed(1)
  const branches = totals.coveredBranchPercent.toFixed(1)
  const functions = totals.coveredFunctionPercent.toFixed(1)
  console.log(`coverage of src: lines ${lines} %, branches ${branches} %, functions ${functions} %`)
  console.log('least covered:')
  const least = files.toSorted((a, b) => a.coveredLinePercent - b.coveredLinePercent).slice(0, 5)
  for (const { coveredLinePercent, path } of least) {
    console.log(`  ${coveredLinePercent.toFixed(1).padStart(5)} %  ${relative(ROOT, path)}`)
  }
}

function header(text: string): void {
  console.log(`\n=== ${text}`)
}

function complain(text: string): number {
  console.error(`✖ ${text}`)
  return 1
}

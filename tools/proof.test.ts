/** Rows of docs/proof.md. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  describeRun,
  noteProof,
  PROOF_PAGE,
  proofRows,
  type ProofEvent,
  type Proofs,
  recordProofs,
  settleRun,
} from './proof.ts'

const file = '/somewhere/test/long/kill.test.ts'
const run = { date: '2026-03-01', commit: 'abc1234', machine: '2 × one' }

function rowsOf(...events: ProofEvent[]): string[] {
  const proofs: Proofs = new Map()
  for (const event of events) noteProof(proofs, event)
  return proofRows(proofs, run)
}

test('`proofRows()` has a row a file, with seeds and what its tests said', () => {
  const rows = rowsOf(
    { type: 'test:pass', data: { nesting: 1, file, name: 'a part', details: { duration_ms: 1000 } } },
    { type: 'test:pass', data: { nesting: 0, file, name: 'one (SEED=7)', details: { duration_ms: 1400 } } },
    { type: 'test:diagnostic', data: { nesting: 0, file, message: '3 kills | 2 late' } },
    { type: 'test:pass', data: { nesting: 0, file, name: 'two (SEED=7)', details: { duration_ms: 2000 } } },
    { type: 'test:diagnostic', data: { nesting: 0, file, message: 'tests 2' } },
    {
      type: 'test:pass',
      data: { nesting: 0, file: 'other.test.ts', name: 'x', details: { duration_ms: 1 } },
    },
  )
  assert.deepEqual(rows, [
    '| 2026-03-01 | abc1234 | kill | 2 × one | 7 | passed in 3 s; 3 kills \\| 2 late |',
    '| 2026-03-01 | abc1234 | other | 2 × one | – | passed in 0 s |',
  ])
})

test('`proofRows()` says how a test failed, on one line', () => {
  const error = new Error('wrapped', { cause: new Error('1 !==\n 2') })
  const [row] = rowsOf({ type: 'test:fail', data: { nesting: 0, file, name: 'one', details: { error } } })
  assert.match(row ?? '', /\| FAILED in 0 s; one: 1 !== 2 \|$/)
})

test('`settleRun()` names the commit before the tests, and marks one that changed under them', () => {
  assert.deepEqual(settleRun(run, { ...run, date: '2026-03-02' }), run)
  for (const commit of ['def5678', 'abc1234 and changes']) {
    const settled = settleRun(run, { ...run, commit })
    assert.deepEqual(settled, { ...run, commit: `abc1234, ${commit} at the end` })
  }
})

test('`recordProofs()` adds rows that fit the table of the page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-proof-'))
  try {
    const page = join(folder, 'proof.md')
    writeFileSync(page, readFileSync(PROOF_PAGE))
    const rows = proofRows(
      new Map([['kill', { seeds: ['7'], said: [], failures: [], seconds: 2 }]]),
      describeRun(),
    )
    recordProofs(rows, page)
    const lines = readFileSync(page, 'utf8').trimEnd().split('\n')
    assert.equal(lines.at(-1), rows[0])
    const columns = (line: string): number => line.split(' | ').length
    const header = lines.findIndex((line) => line.startsWith('| date |'))
    for (const line of [lines[header]!, ...lines.slice(header + 2)]) assert.equal(columns(line), 6, line)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BenchRecord, GrowthSample, Sample } from '../record.ts'
import { judge, judgeGrowth, spread } from './judgement.ts'
import { formatPage } from './page.ts'
import { drawGrowth } from './growth-chart.ts'
import { drawRatios } from './ratio-chart.ts'

const usage = {
  wallSeconds: 1,
  cpuSeconds: 1,
  rssBytes: 100e6,
  loadAverage: 0,
  repositoryBytes: 0,
  newBytes: 0,
}

test('spread() gives the median of odd and even counts', () => {
  assert.deepEqual(spread([3, 1, 2]), { median: 2, least: 1, most: 3 })
  assert.equal(spread([4, 1, 2, 3])?.median, 2.5)
  assert.equal(spread([]), undefined)
})

test('judge() compares the medians of ours and the peer with must and aim', () => {
  const wall = (peer: Sample['peer'], wallSeconds: number, round: number): Sample => {
    return { step: 'first', peer, round, ...usage, wallSeconds }
  }
  const verdict = (seconds: number) => {
    const samples = [seconds, seconds, 100].map((value, round) => wall('backstock', value, round))
    samples.push(...[10, 10, 0.1].map((value, round) => wall('restic', value, round)))
    return judge(recordOf({ samples }))[0]?.verdict
  }
  assert.equal(verdict(3.8), 'aim reached')
  assert.equal(verdict(5), 'as it must be')
  assert.equal(verdict(5.1), 'missed')
})

test('judge() says what was not measured, an index of fewer chunks included', () => {
  const indexMemory = { chunks: 40_000, residentBytes: 1, peakBytes: 1, lookupsPerSecond: 1 }
  assert.ok(judge(recordOf({ indexMemory })).every((row) => row.verdict === 'not measured'))
})

test('judgeGrowth() misses time that grows faster than the data, and memory that grows', () => {
  const verdict = (wallSeconds: number, rssBytes: number) => {
    const sample = (size: number): GrowthSample => {
      return { series: 'files', size, step: 'first', peer: 'backstock', round: 1, ...usage }
    }
    return judgeGrowth(recordOf({ growth: [sample(1000), { ...sample(10_000), wallSeconds, rssBytes }] }))[0]
      ?.verdict
  }
  assert.equal(verdict(10, 110e6), 'as it must be')
  assert.equal(verdict(14, 110e6), 'missed')
  assert.equal(verdict(10, 130e6), 'missed')
})

test('page and charts are drawn from a record in which nothing was measured', () => {
  const record = recordOf({ command: 'npm run bench -- --only "a" & <b>' })
  assert.match(formatPage(record), /not measured/)
  for (const drawing of [drawRatios(record), drawGrowth(record)]) {
    assert.match(drawing, /^<svg .*<\/svg>\n$/s)
    assert.doesNotMatch(drawing, /NaN|undefined|Infinity/)
  }
})

function recordOf(parts: Partial<BenchRecord>): BenchRecord {
  return {
    date: '2026-01-01 00:00 UTC',
    command: 'npm run bench',
    machine: { processor: 'test', cores: 2, memoryBytes: 1e9, kernel: 'test' },
    versions: {},
    rounds: 3,
    scale: 1,
    shop: { files: 0, bytes: 0 },
    samples: [],
    growth: [],
    indexMemory: null,
    indexMemoryMissing: '',
    ...parts,
  }
}

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { Failure, isFailure } from './failure.ts'
import { closePool, openPool, startJob, type ThreadPool } from './thread-pool.ts'

type Job = number | 'fail' | 'bug' | 'throw outside' | 'exit' | 'threads'

let dir = ''
let file: URL

/** A worker that doubles numbers, slowly enough to be waited for, and does what else it is told. */
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'backstock-pool-'))
  const path = join(dir, 'test-worker.ts')
  writeFileSync(
    path,
    `import { threadId, workerData } from 'node:worker_threads'
import { Failure } from ${JSON.stringify(new URL('failure.ts', import.meta.url).href)}
import { serveJobs } from ${JSON.stringify(new URL('thread-pool.ts', import.meta.url).href)}
let running = 0
serveJobs(async (job) => {
  running++
  try {
    if (running > 1) throw new Error('two jobs at once')
    if (job === 'fail') throw new Failure('storage.full', 'Cannot write: full', { facts: { free: 0 } })
    if (job === 'bug') throw new TypeError('a bug')
    if (job === 'exit') process.exit(3)
    if (job === 'throw outside') setTimeout(() => { throw new Error('outside of any job') }, 0)
    await new Promise((resolve) => setTimeout(resolve, 2))
    return job === 'threads' ? threadId : job * workerData.factor
  } finally {
    running--
  }
})
`,
  )
  file = pathToFileURL(path)
})
after(() => rmSync(dir, { recursive: true }))

function open(count: number): ThreadPool<Job, number> {
  return openPool<Job, number>(file, count, () => ({ data: { factor: 2 }, transfer: [] }))
}

async function answer(pool: ThreadPool<Job, number>, job: Job): Promise<number> {
  const { result } = await startJob(pool, job)
  return await result
}

test('`startJob()` gives each job its own result and holds back while all threads are busy', async () => {
  const pool = open(2)
  try {
    let started = 0
    const results = Array.from({ length: 50 }, async (_, job) => {
      const { result } = await startJob(pool, job)
      started++
      assert.ok(pool.waiting.size <= 4, 'a bounded number of jobs is under way')
      return await result
    })
    assert.deepEqual(
      await Promise.all(results),
      Array.from({ length: 50 }, (_, job) => job * 2),
    )
    assert.equal(started, 50)
    const threads = await Promise.all(Array.from({ length: 8 }, () => answer(pool, 'threads')))
    assert.equal(new Set(threads).size, 2)
  } finally {
    await closePool(pool)
  }
})

test('`startJob()` passes Failures on with code and facts, and bugs with where they arose', async () => {
  const pool = open(1)
  try {
    await assert.rejects(answer(pool, 'fail'), (error) => {
      assert.ok(error instanceof Failure && isFailure(error, 'storage.full'))
      assert.deepEqual([error.message, error.facts], ['Cannot write: full', { free: 0 }])
      return true
    })
    await assert.rejects(answer(pool, 'bug'), /a bug[^]*test-worker\.ts/)
    assert.equal(await answer(pool, 21), 42, 'the thread goes on')
  } finally {
    await closePool(pool)
  }
})

for (const end of ['throw outside', 'exit'] as const)
  test(`a thread that dies (${end}) fails its jobs, those that wait, and those to come`, async () => {
    const pool = open(1)
    try {
      const jobs = [end, 1, 2, 3, 4].map((job) => answer(pool, job as Job))
      const outcomes = await Promise.allSettled(jobs)
      assert.ok(outcomes.slice(1).every(({ status }) => status === 'rejected'))
      await assert.rejects(answer(pool, 1), end === 'exit' ? /ended by itself/ : /outside of any job/)
    } finally {
      await closePool(pool)
    }
  })

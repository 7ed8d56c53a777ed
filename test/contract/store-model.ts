/** A store compared with a plain map of names to bytes, over random lists of calls. */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { isFailure } from '../../src/base/failure.ts'
import type { BlobStore } from '../../src/storage/store.ts'
import { patternOf, statsOf } from './store-asserts.ts'

interface StorePlace {
  readonly store: BlobStore
  readonly remove?: () => Promise<void>
}

/** One step against the store and against a plain map. */
type Step =
  | { readonly call: 'put'; readonly name: string; readonly bytes: Uint8Array }
  | {
      readonly call: 'get'
      readonly name: string
      readonly offset: number
      readonly length: number | undefined
    }
  | { readonly call: 'stat' | 'delete'; readonly name: string }
  | { readonly call: 'list'; readonly prefix: string }

/** None of them is a folder of another: a file system could not hold both. */
const MODEL_NAMES = ['a/b/c', 'a/b/d', 'a/b-', 'a/b.', 'a.', 'a-/b', 'c/0', 'c/_', 'z']
const MODEL_PREFIXES = ['', 'a/', 'a/b/', 'a-/', 'c/', 'x/']

function stepArbitrary(): fc.Arbitrary<Step> {
  const name = fc.constantFrom(...MODEL_NAMES)
  // Few different bytes, so that identical puts happen.
  const bytes = fc.oneof(
    fc.integer({ min: 0, max: 3 }).map((count) => patternOf(count * 700)),
    fc.uint8Array({ maxLength: 40 }),
  )
  const offset = fc.integer({ min: 0, max: 2200 })
  return fc.oneof(
    { weight: 5, arbitrary: fc.record({ call: fc.constant('put' as const), name, bytes }) },
    {
      weight: 4,
      arbitrary: fc.record({
        call: fc.constant('get' as const),
        name,
        offset,
        length: fc.option(offset, { nil: undefined }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ call: fc.constantFrom('stat' as const, 'delete' as const), name }) },
    {
      weight: 2,
      arbitrary: fc.record({
        call: fc.constant('list' as const),
        prefix: fc.constantFrom(...MODEL_PREFIXES),
      }),
    },
  )
}

/**
 * Fails at the first list of steps where a fresh store of `open` differs from a plain map.
 * The failure prints its seed; the environment's SEED= runs it again.
 */
export async function assertLikeMap(open: () => Promise<StorePlace>, runCount: number): Promise<void> {
  const property = fc.asyncProperty(fc.array(stepArbitrary(), { maxLength: 40 }), async (steps) => {
    const { store, remove } = await open()
    const model = new Map<string, Uint8Array>()
    try {
      for (const step of steps) assert.deepEqual(await runStep(store, step), expectStep(model, step))
    } finally {
      await store.close()
      await remove?.()
    }
  })
  const seed = process.env['SEED']
  await fc.assert(property, { numRuns: runCount, ...(seed === undefined ? {} : { seed: Number(seed) }) })
}

async function runStep(store: BlobStore, step: Step): Promise<unknown> {
  try {
    switch (step.call) {
      case 'put':
        return await store.put(step.name, step.bytes)
      case 'get': {
        const { offset, length } = step
        return Buffer.from(
          await store.get(step.name, length === undefined ? { offset } : { offset, length }),
        ).toString('hex')
      }
      case 'stat':
        return (await store.stat(step.name))?.bytes
      case 'delete':
        return await store.delete(step.name)
      case 'list':
        return (await statsOf(store, step.prefix)).map(({ name, bytes }) => `${name} ${bytes}`)
    }
  } catch (error) {
    if (isFailure(error)) return error.code
    throw error
  }
}

function expectStep(model: Map<string, Uint8Array>, step: Step): unknown {
  switch (step.call) {
    case 'put': {
      const there = model.get(step.name)
      if (there === undefined) model.set(step.name, step.bytes)
      if (there === undefined) return 'created'
      return Buffer.from(there).equals(step.bytes) ? 'identical' : 'storage.exists'
    }
    case 'get': {
      const there = model.get(step.name)
      if (there === undefined) return 'storage.missing'
      const end = step.length === undefined ? Math.max(step.offset, there.length) : step.offset + step.length
      return end > there.length
        ? 'storage.short'
        : Buffer.from(there.subarray(step.offset, end)).toString('hex')
    }
    case 'stat':
      return model.get(step.name)?.length
    case 'delete':
      return model.delete(step.name) ? 'deleted' : 'absent'
    case 'list': {
      const names = [...model.keys()].filter((name) => name.startsWith(step.prefix)).toSorted()
      return names.map((name) => `${name} ${model.get(name)?.length}`)
    }
  }
}

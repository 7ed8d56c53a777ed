/**
 * A store that misbehaves as told: it fails, lies, cuts and flips what it returns, hangs, is slow, loses
 * acknowledgements. The same plan and the same order of calls give the same tricks; chance comes from the
 * plan's seed.
 */
import { Failure, type FailureCode } from '../../src/base/failure.ts'
import type { BlobStat, BlobStore } from '../../src/storage/store.ts'

type StoreCall = 'put' | 'get' | 'stat' | 'list' | 'delete' | 'sweep'

type Trick =
  /** Throws and does nothing. */
  | { readonly kind: 'fail'; readonly code: FailureCode }
  /** Does it, then throws as if no answer had come (default storage.offline). */
  | { readonly kind: 'lose-answer'; readonly code?: FailureCode }
  /**
   * put: says created and stores nothing · get: missing · stat: undefined ·
   * delete: says deleted and keeps it · list: leaves out the blobs that the rule's `name` fits.
   */
  | { readonly kind: 'lie' }
  /** put: stores the first half and throws storage.offline. */
  | { readonly kind: 'tear' }
  /** get: returns the first `bytes` of what was asked · list: ends after so many. */
  | { readonly kind: 'cut'; readonly to: number }
  /** get: one bit is wrong, where the seed says. */
  | { readonly kind: 'flip' }
  /** get: returns as many bytes of another blob. */
  | { readonly kind: 'swap'; readonly name: string }
  /** Waits for release(), then goes on; or for the call's signal, then fails as cancelled. */
  | { readonly kind: 'hang' }
  /** Goes on after so many milliseconds. */
  | { readonly kind: 'slow'; readonly milliseconds: number }

export interface HostileRule {
  readonly on: StoreCall | readonly StoreCall[]
  /** Which names (for list: which prefixes; for a lying list: which blobs). Default: all. */
  readonly name?: RegExp
  /** How many fitting calls pass before the first trick. Default 0. */
  readonly after?: number
  /** How many fitting calls are tricked. Default: all. */
  readonly times?: number
  /** 0 to 1; default 1. */
  readonly chance?: number
  readonly trick: Trick
}

export interface HostilePlan {
  readonly seed?: number
  /** The first rule that fits a call and is not used up decides. */
  readonly rules: readonly HostileRule[]
}

export interface HostileStore extends BlobStore {
  /** Every trick played: `put d/x: fail`. */
  readonly tricks: readonly string[]
  /** Lets all hanging calls go on, and makes no later one hang. */
  release(): void
  /** Resolves as soon as a call hangs. */
  untilHanging(): Promise<void>
}

interface HostileState {
  readonly inner: BlobStore
  readonly rules: readonly (HostileRule & { passed: number; played: number })[]
  readonly random: () => number
  readonly tricks: string[]
  readonly released: PromiseWithResolvers<void>
  readonly hanging: PromiseWithResolvers<void>
}

export function hostileStore(inner: BlobStore, plan: HostilePlan): HostileStore {
  const state: HostileState = {
    inner,
    rules: plan.rules.map((rule) => ({ ...rule, passed: 0, played: 0 })),
    random: seededRandom(plan.seed ?? 1),
    tricks: [],
    released: Promise.withResolvers(),
    hanging: Promise.withResolvers(),
  }
  return {
    location: inner.location,
    workerUrl: undefined,
    capabilities: inner.capabilities,
    put: (name, bytes, options) => hostilePut(state, { name, bytes }, options?.signal),
    get: (name, options) => hostileGet(state, name, options ?? {}),
    async stat(name) {
      const rule = await trickOf(state, 'stat', name)
      if (rule?.trick.kind === 'lie') return undefined
      return answerOf(rule, inner.stat(name), `stat ${name}`)
    },
    list: (prefix) => hostileList(state, prefix),
    async delete(name) {
      const rule = await trickOf(state, 'delete', name)
      if (rule?.trick.kind === 'lie') return 'deleted'
      return answerOf(rule, inner.delete(name), `delete ${name}`)
    },
    async sweep(olderThanMs) {
      const rule = await trickOf(state, 'sweep', '')
      return answerOf(rule, inner.sweep(olderThanMs), 'sweep')
    },
    close: () => inner.close(),
    tricks: state.tricks,
    release: () => state.released.resolve(),
    untilHanging: () => state.hanging.promise,
  }
}

async function hostilePut(
  state: HostileState,
  blob: { name: string; bytes: Uint8Array },
  signal: AbortSignal | undefined,
): Promise<'created' | 'identical'> {
  const { name, bytes } = blob
  const rule = await trickOf(state, 'put', name, signal)
  if (rule?.trick.kind === 'lie') return 'created'
  if (rule?.trick.kind === 'tear') {
    await state.inner.put(name, bytes.subarray(0, bytes.length >> 1))
    throw failureOf('storage.offline', `put ${name}`)
  }
  return answerOf(rule, state.inner.put(name, bytes, signal === undefined ? {} : { signal }), `put ${name}`)
}

async function hostileGet(
  state: HostileState,
  name: string,
  options: Parameters<BlobStore['get']>[1] & object,
): Promise<Uint8Array> {
  const rule = await trickOf(state, 'get', name, options.signal)
  const trick = rule?.trick
  if (trick?.kind === 'lie') throw failureOf('storage.missing', `get ${name}`)
  const bytes = await answerOf(rule, state.inner.get(name, options), `get ${name}`)
  if (trick?.kind === 'cut') return bytes.subarray(0, trick.to)
  if (trick?.kind === 'flip' && bytes.length > 0) {
    const at = Math.floor(state.random() * bytes.length)
    bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(state.random() * 8))
  }
  if (trick?.kind === 'swap') {
    const other = await state.inner.get(trick.name)
    bytes.set(other.subarray(0, bytes.length))
    return bytes.subarray(0, other.length)
  }
  return bytes
}

async function* hostileList(state: HostileState, prefix: string): AsyncGenerator<BlobStat> {
  const rule = await trickOf(state, 'list', prefix)
  const trick = rule?.trick
  let given = 0
  for await (const stat of state.inner.list(prefix)) {
    if (trick?.kind === 'lie' && (rule?.name === undefined || rule.name.test(stat.name))) continue
    if (trick?.kind === 'cut' && given === trick.to) return
    given += 1
    yield stat
  }
  if (trick?.kind === 'lose-answer') throw failureOf(trick.code ?? 'storage.offline', `list ${prefix}`)
}

/** The rule that decides this call, after what it does before the call: fail, hang, be slow. */
async function trickOf(
  state: HostileState,
  call: StoreCall,
  name: string,
  signal?: AbortSignal,
): Promise<HostileRule | undefined> {
  const rule = state.rules.find((candidate) => isPlayed(state, candidate, call, name))
  if (rule === undefined) return undefined
  const { trick } = rule
  state.tricks.push(`${call} ${name}: ${trick.kind}`)
  if (trick.kind === 'fail') throw failureOf(trick.code, `${call} ${name}`)
  // The global timer: the one that tests can mock.
  if (trick.kind === 'slow') await new Promise((resolve) => setTimeout(resolve, trick.milliseconds))
  if (trick.kind === 'hang') await hang(state, signal, `${call} ${name}`)
  return rule
}

function isPlayed(
  state: HostileState,
  rule: HostileState['rules'][number],
  call: StoreCall,
  name: string,
): boolean {
  const fitsCall = typeof rule.on === 'string' ? rule.on === call : rule.on.includes(call)
  // What a lying list leaves out is chosen blob by blob.
  const fitsName =
    (call === 'list' && rule.trick.kind === 'lie') || rule.name === undefined || rule.name.test(name)
  if (!fitsCall || !fitsName) return false
  if (rule.passed < (rule.after ?? 0)) {
    rule.passed += 1
    return false
  }
  if (rule.played >= (rule.times ?? Number.POSITIVE_INFINITY)) return false
  if (rule.chance !== undefined && state.random() >= rule.chance) return false
  rule.played += 1
  return true
}

async function hang(state: HostileState, signal: AbortSignal | undefined, what: string): Promise<void> {
  const aborted = Promise.withResolvers<void>()
  const abort = (): void => aborted.reject(failureOf('cancelled', what))
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted === true) abort()
  state.hanging.resolve()
  try {
    await Promise.race([state.released.promise, aborted.promise])
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

/** The inner store's answer, or that it got lost. */
async function answerOf<T>(rule: HostileRule | undefined, call: Promise<T>, what: string): Promise<T> {
  const answer = await call
  if (rule?.trick.kind !== 'lose-answer') return answer
  throw failureOf(rule.trick.code ?? 'storage.offline', what)
}

function failureOf(code: FailureCode, what: string): Failure {
  return new Failure(code, `Cannot ${what}: the hostile store says ${code}`)
}

/** Mulberry32 (Tommy Ettinger, public domain): 0 ≤ value < 1. */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * The table of the chunks that the running session stores: shared memory, written by all worker threads at
 * once, so that of many threads that meet one chunk exactly one stores it. Open addressing, 24 bytes a slot,
 * no locks.
 *
 * | word |                                                                                    |
 * | ---- | ---------------------------------------------------------------------------------- |
 * | 0–3  | first 16 bytes of the chunk id; word 0 is taken by compare-and-swap; 0 = free slot |
 * | 4    | pack number                                                                        |
 * | 5    | 0 while the slot is being written, then chunk number + 1                           |
 *
 * A claim is a promise: whoever claims a chunk stores it where the claim says, or fails the session; the
 * others already build on it. Chunk ids are keyed hashes, so 16 bytes tell them apart.
 * When the table cannot decide (it is nearly full, or a claimer was stopped between two instructions) the
 * chunk is claimed and stored a second time, which harms nothing. How a full table is replaced:
 * chunk-index.ts.
 */
import { assert } from '../base/failure.ts'

/**
 * Shared memory of a table; may be posted to worker threads. Words of 32 bits: a header of 16, then 6 a slot.
 */
export interface SessionTable {
  readonly words: Int32Array<SharedArrayBuffer>
  readonly slots: number
}

/** Where a chunk lies. */
export interface ChunkPlace {
  /** Global pack number (chunk-index.ts). */
  readonly pack: number
  /** Chunk number in that pack. */
  readonly number: number
}

const HEADER_WORDS = 16
const SLOT_WORDS = 6
/** Word of the header that counts the slots taken. */
const TAKEN_AT = 0
const SLOTS_MAX = 1 << 26
/** Load at which a table should give way to a new one, and at which it takes no more. */
const LOAD_ROTATE = 0.7
const LOAD_MAX = 0.9
/** How long a thread waits for another one to finish writing a slot: spins, then naps of a millisecond. */
const SPINS_MAX = 1000
const NAPS_MAX = 200

/** A table that takes at least `capacity` chunks before it should be replaced. Slots are a power of two. */
export function newSessionTable(capacity: number): SessionTable {
  let slots = 64
  while (slots * LOAD_ROTATE < capacity) slots *= 2
  assert(slots <= SLOTS_MAX, 'a session table has at most 2^26 slots')
  return { words: new Int32Array(new SharedArrayBuffer((HEADER_WORDS + slots * SLOT_WORDS) * 4)), slots }
}

/**
 * Claims the chunk whose id begins at `at` of `id` for `place`: undefined means that the caller must store it
 * there, else it is the place that an earlier claim gave. Safe from any thread; waits at most 0.2 s.
 */
export function claimSlot(
  table: SessionTable,
  id: Buffer,
  at: number,
  place: ChunkPlace,
): ChunkPlace | undefined {
  const { words, slots } = table
  const key = keyOf(id, at)
  let slot = homeOf(table, id, at)
  for (let probes = 0; probes < slots; probes++) {
    const base = HEADER_WORDS + slot * SLOT_WORDS
    let held = Atomics.load(words, base)
    if (held === 0) {
      if (takenSlots(table) >= slots * LOAD_MAX) return undefined
      held = Atomics.compareExchange(words, base, 0, key)
      if (held === 0) {
        writeSlot(words, base, id, at, place)
        return undefined
      }
    }
    if (held === key && isHeldBy(words, base, id, at)) return placeAt(words, base)
    slot = (slot + 1) & (slots - 1)
  }
  return undefined
}

/** The place of a claimed chunk, or undefined if nobody claimed it. Safe from any thread. */
export function findSlot(table: SessionTable, id: Buffer, at: number): ChunkPlace | undefined {
  const { words, slots } = table
  const key = keyOf(id, at)
  let slot = homeOf(table, id, at)
  for (let probes = 0; probes < slots; probes++) {
    const base = HEADER_WORDS + slot * SLOT_WORDS
    const held = Atomics.load(words, base)
    if (held === 0) return undefined
    if (held === key && isHeldBy(words, base, id, at)) return placeAt(words, base)
    slot = (slot + 1) & (slots - 1)
  }
  return undefined
}

/** Chunks claimed so far. */
export function takenSlots(table: SessionTable): number {
  return Atomics.load(table.words, TAKEN_AT)
}

/** Whether it is time for a new table: past 70 % load. */
export function isTableFilling(table: SessionTable): boolean {
  return takenSlots(table) >= table.slots * LOAD_ROTATE
}

function writeSlot(words: Int32Array, base: number, id: Buffer, at: number, place: ChunkPlace): void {
  words[base + 1] = id.readInt32LE(at + 4)
  words[base + 2] = id.readInt32LE(at + 8)
  words[base + 3] = id.readInt32LE(at + 12)
  words[base + 4] = place.pack
  Atomics.store(words, base + 5, place.number + 1)
  Atomics.add(words, TAKEN_AT, 1)
}

/**
 * Whether the slot, whose first word fits, holds this id. Waits, within bounds, until the rest is written.
 */
function isHeldBy(words: Int32Array<SharedArrayBuffer>, base: number, id: Buffer, at: number): boolean {
  for (let turns = 0; Atomics.load(words, base + 5) === 0; turns++) {
    if (turns > SPINS_MAX + NAPS_MAX) return false
    if (turns > SPINS_MAX) Atomics.wait(words, base + 5, 0, 1)
  }
  return (
    words[base + 1] === id.readInt32LE(at + 4) &&
    words[base + 2] === id.readInt32LE(at + 8) &&
    words[base + 3] === id.readInt32LE(at + 12)
  )
}

function placeAt(words: Int32Array, base: number): ChunkPlace {
  return { pack: words[base + 4] as number, number: (words[base + 5] as number) - 1 }
}

/** Word 0 of a slot: never 0, which marks a free one. */
function keyOf(id: Buffer, at: number): number {
  return id.readInt32LE(at) || 1
}

function homeOf(table: SessionTable, id: Buffer, at: number): number {
  return id.readInt32LE(at + 4) & (table.slots - 1)
}

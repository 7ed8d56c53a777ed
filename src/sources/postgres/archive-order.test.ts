import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSegments } from './archive-inbox.ts'
import { nextFile, type NextFile } from './archive-order.ts'
import { parseHistory, parseLsn } from './lsn.ts'

const SEGMENT_BYTES = 1 << 20
const HISTORIES: Readonly<Record<number, string>> = {
  2: '1\t0/250000\tgone\n',
  3: '1\t0/250000\tgone\n2\t0/280000\tgone\n',
  4: '1\t0/150000\tgone\n',
}

/** Short names, such as "1:3" for the segment 3 of timeline 1, and "1:3.partial". */
function fullName(short: string): string {
  const [timeline = '', rest = ''] = short.split(':')
  const [number = '', ending] = rest.split('.')
  return `${timeline.padStart(8, '0')}${'0'.repeat(8)}${number.padStart(8, '0')}${ending ? `.${ending}` : ''}`
}

/** What comes next behind `end` ("1:0/200000"). */
function next(end: string | undefined, names: readonly string[], known: readonly number[] = [2, 3, 4]) {
  const [timeline, lsn = ''] = end?.split(':') ?? []
  const found = nextFile({
    position: timeline === undefined ? undefined : { timeline: Number(timeline), lsn: parseLsn(lsn) },
    segmentBytes: SEGMENT_BYTES,
    segments: parseSegments(names.map(fullName), SEGMENT_BYTES),
    historyOf: (one) => (known.includes(one) ? parseHistory(one, HISTORIES[one] ?? '') : undefined),
  })
  return found && shown(found)
}

function shown(found: NextFile): string {
  return found.kind === 'missing'
    ? `missing ${found.name}, there is ${found.later}`
    : `${found.kind} ${found.segment.name}`
}

test('nextFile() begins with the oldest whole segment', () => {
  assert.equal(next(undefined, []), undefined)
  assert.equal(next(undefined, ['1:2.partial']), undefined)
  assert.equal(next(undefined, ['2:2', '1:4', '1:3', '1:2.partial']), `take ${fullName('1:3')}`)
})

test('nextFile() goes on where the spool ends, within a segment too; what comes again is taken again', () => {
  assert.equal(next('1:0/200000', []), undefined)
  assert.equal(next('1:0/200000', ['1:3', '1:2']), `take ${fullName('1:2')}`)
  assert.equal(next('1:0/212345', ['1:3', '1:2']), `take ${fullName('1:2')}`)
  assert.equal(next('1:0/200000', ['1:2', '1:1']), `take ${fullName('1:1')}`)
  assert.equal(next('1:0/200000', ['1:2.partial', '2:2']), `take ${fullName('1:2.partial')}`)
  assert.equal(next('1:0/200000', ['1:2.partial', '1:2']), `take ${fullName('1:2')}`)
})

test('nextFile() never passes over a segment', () => {
  const missing = `missing ${fullName('1:2')}, there is`
  assert.equal(next('1:0/200000', ['1:3', '1:4']), `${missing} ${fullName('1:3')}`)
  assert.equal(next('1:0/100000', ['2:2']), `missing ${fullName('1:1')}, there is ${fullName('2:2')}`)
  assert.equal(next('1:0/200000', ['2:3']), `missing ${fullName('2:2')}, there is ${fullName('2:3')}`)
})

test('nextFile() follows a timeline to the next, in its own order', () => {
  assert.equal(next('1:0/200000', ['2:2', '2:3']), `switch ${fullName('2:2')}`)
  assert.equal(next('1:0/250000', ['2:2', '3:2']), `switch ${fullName('2:2')}`)
  assert.equal(next('1:0/300000', ['2:2']), `switch ${fullName('2:2')}`, 'the lost server wrote on')
  assert.equal(next('1:0/250000', ['2:2.partial', '3:2']), `switch ${fullName('2:2.partial')}`)
  assert.equal(next('1:0/250000', ['3:2']), `switch ${fullName('3:2')}`)
  const unknown = `missing 00000002.history, there is ${fullName('2:2')}`
  assert.equal(next('1:0/200000', ['2:2'], []), unknown)
})

test('nextFile() sees timelines that were left, and those that come from elsewhere', () => {
  assert.equal(next('2:0/300000', ['1:2', '2:3']), `old ${fullName('1:2')}`)
  assert.equal(next('2:0/300000', ['4:1']), `diverged ${fullName('4:1')}`)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { fakeClock, fakeStream } from '../../test/harness/cli-world.ts'
import { newPrinter, warn } from './print.ts'
import { type Progress, beginProgress, endProgress, progressLine, updateProgress } from './progress.ts'
import { displayWidth } from './table.ts'

function fakes(options: { json?: boolean; quiet?: boolean; tty?: number }) {
  const out = fakeStream()
  const err = fakeStream(options.tty)
  const clock = fakeClock()
  const printer = newPrinter({ out: out.stream, err: err.stream, env: {}, ...options })
  const progress = beginProgress(printer, clock, 'backup media', { timer: false })
  return { out, err, clock, printer, progress }
}

const mib = 1024 ** 2

/** Ten seconds at 10 MiB/s of 200 MiB. */
function runTenSeconds(progress: Progress, clock: ReturnType<typeof fakeClock>): void {
  for (let step = 1; step <= 100; step++) {
    clock.advance(100)
    const current = 'srv/media/2026/logo.png'
    updateProgress(progress, {
      files: step,
      filesTotal: 200,
      bytes: step * mib,
      bytesTotal: 200 * mib,
      current,
    })
  }
}

test('a bar shows share, bytes, rate, time left, files and the current name', () => {
  const { progress, clock, err, out } = fakes({ tty: 140 })
  runTenSeconds(progress, clock)
  assert.equal(
    progressLine(progress, 140),
    '[==========          ]  backup media  50 %  100 MiB of 200 MiB  10.0 MiB/s  0:10 left  ' +
      '100 of 200 files  srv/media/2026/logo.png',
  )
  assert.equal(out.text(), '')
  endProgress(progress)
  endProgress(progress)
  assert.ok(err.text().endsWith('\r\u001b[J'))
})

test('progressLine() fits any terminal', () => {
  const { progress, clock } = fakes({ tty: 80 })
  runTenSeconds(progress, clock)
  fc.assert(
    fc.property(fc.nat(300), fc.string({ unit: 'grapheme' }), (columns, current) => {
      updateProgress(progress, { files: 1, bytes: 1, bytesTotal: 9, current })
      assert.ok(displayWidth(progressLine(progress, columns)) < Math.max(20, columns))
    }),
  )
  assert.match(progressLine(progress, 20), /^backup media/)
})

test('drawing is bounded by time, not by calls', () => {
  const { progress, clock, err } = fakes({ tty: 80 })
  for (let call = 0; call < 10_000; call++) {
    clock.advance(0.1)
    updateProgress(progress, { files: call, bytes: call })
  }
  const draws = err.text().split('backup media').length - 1
  assert.ok(draws >= 9 && draws <= 10, `${draws} draws in a second`)
})

test('a warning goes above the bar, which comes back', () => {
  const { progress, clock, err, printer } = fakes({ tty: 80 })
  runTenSeconds(progress, clock)
  const before = err.text().length
  warn(printer, 'unreadable: a')
  const [wiped, text, bar] = err
    .text()
    .slice(before)
    .split(/(?<=J)|\n/)
  assert.equal(wiped, '\r\u001b[J')
  assert.ok(text?.endsWith(' unreadable: a'))
  assert.match(bar ?? '', /^\[===== +\] {2}backup media/)
})

test('a terminal made narrower is wiped over all rows that the bar took', () => {
  const { progress, clock, err } = fakes({ tty: 80 })
  runTenSeconds(progress, clock)
  err.resize(40)
  clock.advance(100)
  updateProgress(progress, { files: 1, bytes: 1 })
  // 75 columns lie on two rows of 40.
  assert.ok(err.text().includes('\u001b[1A\r\u001b[J'))
})

test('without a terminal there is a line every 30 s', () => {
  const { progress, clock, err } = fakes({})
  runTenSeconds(progress, clock)
  assert.equal(err.text(), '')
  clock.advance(25_000)
  updateProgress(progress, { files: 100, bytes: 350 * mib, errors: 2 })
  assert.match(err.text(), /^backup media, 350 MiB, \S+ MiB\/s, 100 files, 2 errors\n$/)
})

test('--json gives a status event a second', () => {
  const { progress, clock, out, err } = fakes({ json: true, tty: 80 })
  runTenSeconds(progress, clock)
  const events = out
    .text()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  assert.equal(events.length, 10)
  assert.deepEqual(events.at(-1), {
    type: 'status',
    what: 'backup media',
    seconds: 10,
    files: 100,
    filesTotal: 200,
    bytes: 100 * mib,
    bytesTotal: 200 * mib,
    percent: 50,
    bytesPerSecond: 10 * mib,
    secondsLeft: 10,
  })
  assert.equal(err.text(), '')
})

test('--quiet shows nothing', () => {
  const { progress, clock, out, err } = fakes({ quiet: true, tty: 80 })
  runTenSeconds(progress, clock)
  endProgress(progress)
  assert.equal(out.text() + err.text(), '')
})

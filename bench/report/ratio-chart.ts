/** The bars of the promises that are ratios: shorter is better, 1 is the peer; marks show must and aim. */
import type { BenchRecord } from '../record.ts'
import { judge, type Judgement } from './judgement.ts'
import { element, label, line, sheet } from './svg.ts'
import { ratioText } from './tables.ts'

const width = 860
const left = 300
const right = 70
const top = 78
const rowHeight = 34
const barHeight = 16
const ratioMin = 1.2
const ratioMax = 3

/** Draws the chart; promises that were not measured have no bar. */
export function drawRatios(record: BenchRecord): string {
  const rows = judge(record).filter((row) => row.peer !== undefined)
  const highest = Math.max(ratioMin, ...rows.map((row) => Math.max(row.must, row.value ?? 0)))
  const end = Math.min(ratioMax, Math.ceil(highest * 5) / 5)
  const x = (ratio: number) => left + (Math.min(ratio, end) / end) * (width - left - right)
  const bottom = top + rows.length * rowHeight
  const title = 'Backstock relative to its peers'
  return sheet({ width, height: bottom + 58 }, title, [
    label(title, { x: 20, y: 30 }, { class: 'title' }),
    ...legend(),
    ...ticks(end).flatMap((ratio) => [
      line({ x: x(ratio), y: top }, { x: x(ratio), y: bottom }, ratio === 1 ? 'axis' : 'grid'),
      label(ratio.toFixed(1), { x: x(ratio), y: bottom + 18 }, { anchor: 'middle' }),
    ]),
    label(
      'ratio of medians, backstock : peer (1.0 = as the peer; less is better)',
      {
        x: (left + width - right) / 2,
        y: bottom + 40,
      },
      { class: 'faint', anchor: 'middle' },
    ),
    ...rows.flatMap((row, at) => bar(row, top + at * rowHeight, x)),
  ])
}

function ticks(end: number): number[] {
  const step = end > 2 ? 0.5 : 0.2
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, at) => at * step).map(
    (ratio) => Math.round(ratio * 10) / 10,
  )
}

function legend(): string[] {
  const y = 54
  return [
    line({ x: left, y: y - 10 }, { x: left, y: y + 2 }, 'must'),
    label('must not exceed', { x: left + 8, y }),
    line({ x: left + 120, y: y - 10 }, { x: left + 120, y: y + 2 }, 'aim'),
    label('aim', { x: left + 128, y }),
  ]
}

function bar(row: Judgement, y: number, x: (ratio: number) => number): string[] {
  const middle = y + rowHeight / 2
  const name = label(row.title, { x: left - 12, y: middle - 1 }, { anchor: 'end' })
  const against = label(
    `against ${row.peer}`,
    { x: left - 12, y: middle + 12 },
    { class: 'faint', anchor: 'end' },
  )
  const marks = (['must', 'aim'] as const).flatMap((kind) => {
    const from = { x: x(row[kind]), y: middle - 13 }
    const to = { x: x(row[kind]), y: middle + 13 }
    return [line(from, to, 'halo'), line(from, to, kind)]
  })
  if (row.value === undefined) {
    return [
      name,
      against,
      ...marks,
      label('not measured', { x: x(row.must) + 10, y: middle + 4 }, { class: 'faint' }),
    ]
  }
  const rect = element('rect', {
    class: row.verdict === 'missed' ? 'bar-missed' : 'bar',
    x: x(0),
    y: middle - barHeight / 2,
    width: x(row.value) - x(0),
    height: barHeight,
    rx: 2,
  })
  const after = Math.max(x(row.value), row.must - row.value < 0.25 && row.value <= row.must ? x(row.must) : 0)
  return [
    name,
    against,
    rect,
    ...marks,
    label(ratioText(row.value), { x: after + 8, y: middle + 4 }, { class: 'head' }),
  ]
}

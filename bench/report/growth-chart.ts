/**
 * How time, processor time and memory grow: six panels, shop data above and small files below. Time and size
 * are logarithmic, so that a straight line of the slope of the dotted one is linear growth; memory is a
 * plain scale.
 */
import type { PeerName } from '../peers/peer.ts'
import type { BenchRecord, GrowthSeries } from '../record.ts'
import { growthCurve, type GrowthPoint } from './judgement.ts'
import { element, label, line, sheet } from './svg.ts'
import { sizeText } from './tables.ts'

type PanelQuantity = 'wallSeconds' | 'cpuSeconds' | 'rssBytes'

interface Box {
  x: number
  y: number
  width: number
  height: number
}

interface Curve {
  points: GrowthPoint[]
  peer: PeerName
  step: 'first' | 'second'
}

/** A scale from values to places on the sheet, with the values to write beside it. */
interface Scale {
  place: (value: number) => number
  ticks: number[]
}

const panel = { width: 300, height: 220, gapX: 62, gapY: 96 }
const origin = { x: 66, y: 106 }
const legendWidth = 228
const titles: Record<PanelQuantity, string> = {
  wallSeconds: 'wall time (s)',
  cpuSeconds: 'processor time (s)',
  rssBytes: 'peak memory (MB)',
}
const axisTitles: Record<GrowthSeries, string> = {
  bytes: 'shop data',
  files: 'small files of 100–3000 bytes',
}
const series: GrowthSeries[] = ['bytes', 'files']
const quantities: PanelQuantity[] = ['wallSeconds', 'cpuSeconds', 'rssBytes']
const lines: { peer: PeerName; step: 'first' | 'second'; name: string }[] = [
  { peer: 'backstock', step: 'first', name: 'backstock, first backup' },
  { peer: 'backstock', step: 'second', name: 'backstock, unchanged second' },
  { peer: 'restic', step: 'first', name: 'restic, first backup' },
  { peer: 'restic', step: 'second', name: 'restic, unchanged second' },
]

/** Draws the chart of a record's growth samples. */
export function drawGrowth(record: BenchRecord): string {
  const width = origin.x + 3 * panel.width + 2 * panel.gapX + 26
  const height = origin.y + 2 * panel.height + panel.gapY + 70
  const title = 'Growth of a backup with its data'
  const panels = series.flatMap((name, row) => {
    const curves = lines.map(({ peer, step }) => ({
      points: growthCurve(record, name, step, peer),
      peer,
      step,
    }))
    return quantities.flatMap((quantity, column) => {
      const box = {
        x: origin.x + column * (panel.width + panel.gapX),
        y: origin.y + row * (panel.height + panel.gapY),
        width: panel.width,
        height: panel.height,
      }
      return drawPanel(box, name, quantity, curves)
    })
  })
  return sheet({ width, height }, title, [
    label(title, { x: 20, y: 30 }, { class: 'title' }),
    ...legend(),
    ...panels,
  ])
}

function legend(): string[] {
  const entries = [
    ...lines.map(({ peer, step, name }) => ({ className: curveClass(peer, step), name })),
    { className: 'reference', name: 'linear growth' },
  ]
  return entries.flatMap(({ className, name }, at) => {
    const x = 20 + at * legendWidth
    return [line({ x, y: 52 }, { x: x + 26, y: 52 }, className), label(name, { x: x + 32, y: 56 })]
  })
}

function drawPanel(box: Box, name: GrowthSeries, quantity: PanelQuantity, curves: Curve[]): string[] {
  const bottom = box.y + box.height
  const head = label(titles[quantity], { x: box.x, y: box.y - 10 }, { class: 'head' })
  const below = { x: box.x + box.width / 2, y: bottom + 38 }
  const foot = label(axisTitles[name], below, { class: 'faint', anchor: 'middle' })
  const sizes = [...new Set(curves.flatMap((curve) => curve.points.map((point) => point.size)))]
  if (sizes.length === 0) {
    return [head, foot, label('not measured', { x: box.x + 10, y: box.y + 30 }, { class: 'faint' })]
  }
  const values = curves.flatMap((curve) => curve.points.map((point) => point[quantity]))
  const x = logScale(sizes, { from: box.x + 16, to: box.x + box.width - 16 })
  const range = { from: bottom, to: box.y }
  const y = quantity === 'rssBytes' ? plainScale(values, range) : logScale(values, range, true)
  const unit = quantity === 'rssBytes' ? 1e6 : 1
  return [
    head,
    foot,
    ...y.ticks.flatMap((value) => [
      line({ x: box.x, y: y.place(value) }, { x: box.x + box.width, y: y.place(value) }, 'grid'),
      label(
        String(Number((value / unit).toPrecision(3))),
        { x: box.x - 6, y: y.place(value) + 4 },
        { anchor: 'end' },
      ),
    ]),
    ...sizes.flatMap((size) => [
      line({ x: x.place(size), y: bottom }, { x: x.place(size), y: bottom + 5 }, 'axis'),
      label(
        sizeText(name, size).replace(' files', ''),
        { x: x.place(size), y: bottom + 19 },
        { anchor: 'middle' },
      ),
    ]),
    line({ x: box.x, y: bottom }, { x: box.x + box.width, y: bottom }, 'axis'),
    line({ x: box.x, y: box.y }, { x: box.x, y: bottom }, 'axis'),
    ...(quantity === 'rssBytes' ? [] : drawReference(curves[0]?.points ?? [], quantity, { x, y })),
    ...curves.flatMap((curve) => drawCurve(curve, quantity, { x, y })),
  ]
}

/** Linear growth from the first point of our first backup, as far as the panel reaches. */
function drawReference(
  points: GrowthPoint[],
  quantity: PanelQuantity,
  scales: { x: Scale; y: Scale },
): string[] {
  const first = points[0]
  const last = points.at(-1)
  if (first === undefined || last === undefined || first === last) return []
  const most = scales.y.ticks.at(-1) ?? Infinity
  const factor = Math.min(last.size / first.size, most / first[quantity])
  const from = { x: scales.x.place(first.size), y: scales.y.place(first[quantity]) }
  const to = { x: scales.x.place(first.size * factor), y: scales.y.place(first[quantity] * factor) }
  return [line(from, to, 'reference')]
}

function drawCurve(curve: Curve, quantity: PanelQuantity, scales: { x: Scale; y: Scale }): string[] {
  const places = curve.points.map((point) => ({
    cx: scales.x.place(point.size),
    cy: scales.y.place(point[quantity]),
  }))
  if (places.length === 0) return []
  const path = places.map(({ cx, cy }) => `${cx.toFixed(1)},${cy.toFixed(1)}`).join(' ')
  const dot = curve.peer === 'backstock' ? 'ours-dot' : 'theirs-dot'
  return [
    element('polyline', { points: path, class: curveClass(curve.peer, curve.step) }),
    ...places.map((place) => element('circle', { ...place, r: 3.2, class: dot })),
  ]
}

function curveClass(peer: PeerName, step: 'first' | 'second'): string {
  return `${peer === 'backstock' ? 'ours' : 'theirs'}${step === 'second' ? ' dashed' : ''}`
}

/** A logarithmic scale over the values; widened to ticks of 1, 2 and 5 when it is rounded. */
function logScale(values: number[], range: { from: number; to: number }, isRounded = false): Scale {
  const least = Math.max(0.01, Math.min(...values))
  const most = Math.max(least * 1.01, ...values)
  const ticks = isRounded ? logTicks(least, most) : []
  const low = Math.log(Math.min(least, ticks[0] ?? least))
  const high = Math.log(Math.max(most, ticks.at(-1) ?? most))
  const place = (value: number) =>
    range.from + ((Math.log(Math.max(value, 0.01)) - low) / (high - low)) * (range.to - range.from)
  return { place, ticks }
}

/** Ticks that enclose the values, thinned to whole powers of ten where 1, 2 and 5 would crowd. */
function logTicks(least: number, most: number): number[] {
  const first = Math.floor(Math.log10(least))
  const decades = Math.ceil(Math.log10(most)) - first
  const steps = decades > 2 ? [1] : [1, 2, 5]
  const all = Array.from({ length: decades + 1 }, (_, at) =>
    steps.map((step) => step * 10 ** (first + at)),
  ).flat()
  const from = all.findLastIndex((tick) => tick <= least * 1.0001)
  const to = all.findIndex((tick) => tick >= most * 0.9999)
  return all.slice(Math.max(0, from), to < 0 ? undefined : to + 1)
}

/** A scale from zero to a round number above the values. */
function plainScale(values: number[], range: { from: number; to: number }): Scale {
  const most = Math.max(...values)
  const power = 10 ** Math.floor(Math.log10(most / 4))
  const step = power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power * 5 >= most) ?? 10)
  const ticks = Array.from({ length: Math.ceil(most / step) + 1 }, (_, at) => at * step)
  const end = ticks.at(-1) ?? most
  return { place: (value) => range.from + (value / end) * (range.to - range.from), ticks }
}

/** Aligned text: the width of Unicode text on a terminal, cutting it, tables. Pure. */

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
  /** Gives way when the table is wider than the terminal; one column at most. */
  readonly flexible?: boolean
}

const gap = '  '
const flexibleColumnsMin = 12
const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' })
const plain = /^[\u0020-\u007e]*$/
const zeroWidth = /^[\p{Mn}\p{Me}\p{Cf}\p{Cc}]$/u
const emoji = /\p{Emoji_Presentation}|\ufe0f/u
/** East Asian wide and fullwidth blocks (Unicode EastAsianWidth W and F, whole blocks). */
const wide = new RegExp(
  '^[\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\u33ff' +
    '\\u3400-\\u4dbf\\u4e00-\\u9fff\\ua000-\\ua4cf\\ua960-\\ua97f' +
    '\\uac00-\\ud7a3\\uf900-\\ufaff\\ufe30-\\ufe6f\\uff00-\\uff60\\uffe0-\\uffe6' +
    '\\u{1b000}-\\u{1b2ff}\\u{20000}-\\u{3fffd}]',
  'u',
)

/** Columns that `text` takes on a terminal. Colours must not be in it. */
export function displayWidth(text: string): number {
  if (plain.test(text)) return text.length
  let width = 0
  for (const { segment } of segmenter.segment(text)) width += graphemeWidth(segment)
  return width
}

function graphemeWidth(grapheme: string): number {
  if (emoji.test(grapheme)) return 2
  const first = String.fromCodePoint(grapheme.codePointAt(0) ?? 0)
  if (zeroWidth.test(first)) return 0
  return wide.test(first) ? 2 : 1
}

/** `text` in at most `width` columns; what is cut off is marked by one `…` at the given end. */
export function fitWidth(text: string, width: number, cut: 'start' | 'end' = 'end'): string {
  if (displayWidth(text) <= width) return text
  if (width < 1) return ''
  const graphemes = Array.from(segmenter.segment(text), (part) => part.segment)
  if (cut === 'start') graphemes.reverse()
  let kept = 0
  let left = width - 1
  for (const grapheme of graphemes) {
    left -= graphemeWidth(grapheme)
    if (left < 0) break
    kept++
  }
  const part = graphemes.slice(0, kept)
  return cut === 'start' ? `…${part.reverse().join('')}` : `${part.join('')}…`
}

/**
 * The lines of a table, its header first; no spaces at line ends. Beyond `width` columns the flexible column
 * is cut (at its start: the end of a path says more).
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly string[][],
  width = Infinity,
): string[] {
  const all = [columns.map((column) => column.title), ...rows]
  const widths = columns.map((_, at) => maxOf(all, (row) => displayWidth(row[at] ?? '')))
  const total = widths.reduce((sum, one) => sum + one, 0) + gap.length * (columns.length - 1)
  const flexible = columns.findIndex((column) => column.flexible === true)
  if (total > width && flexible >= 0) {
    const own = widths[flexible] ?? 0
    widths[flexible] = Math.max(Math.min(own, flexibleColumnsMin), own - (total - width))
  }
  return all.map((row) =>
    columns
      .map((column, at) => cell(row[at] ?? '', widths[at] ?? 0, column))
      .join(gap)
      .trimEnd(),
  )
}

function cell(text: string, width: number, column: Column): string {
  const fitted = fitWidth(text, width, 'start')
  const fill = ' '.repeat(Math.max(0, width - displayWidth(fitted)))
  return column.align === 'right' ? fill + fitted : fitted + fill
}

/** A loop, since spreading a million rows into Math.max overflows the stack. */
function maxOf(rows: readonly string[][], measure: (row: string[]) => number): number {
  let max = 0
  for (const row of rows) max = Math.max(max, measure(row))
  return max
}

/**
 * A small SVG writer: elements as text, and the sheet that all our charts share. The sheet paints its own
 * ground, in light and, where the reader prefers it, in dark, so that a chart is readable on any page. No
 * scripts, no fonts.
 */

/** A point of the sheet, in pixels from its upper left corner. */
export interface Place {
  x: number
  y: number
}

/** An element; numbers are cut to a tenth, text content is escaped unless it is elements. */
export function element(
  name: string,
  attributes: Record<string, string | number>,
  content: string | string[] = [],
): string {
  const words = Object.entries(attributes).map(
    ([key, value]) => ` ${key}="${escapeText(attributeText(value))}"`,
  )
  const inner = typeof content === 'string' ? escapeText(content) : content.join('')
  return inner === '' ? `<${name}${words.join('')}/>` : `<${name}${words.join('')}>${inner}</${name}>`
}

/** A text at a point; `class` chooses size and colour, `anchor` which end of it lies there. */
export function label(
  text: string,
  at: Place,
  style: { class?: string; anchor?: 'start' | 'middle' | 'end' } = {},
): string {
  return element(
    'text',
    { x: at.x, y: at.y, class: style.class ?? 'small', 'text-anchor': style.anchor ?? 'start' },
    text,
  )
}

/** A straight line. */
export function line(from: Place, to: Place, className: string): string {
  return element('line', { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: className })
}

/** A whole drawing; the title is what a screen reader says. */
export function sheet(size: { width: number; height: number }, title: string, content: string[]): string {
  const { width, height } = size
  const attributes = {
    xmlns: 'http://www.w3.org/2000/svg',
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: 'img',
    'aria-label': title,
  }
  const ground = element('rect', {
    class: 'ground',
    x: 0.5,
    y: 0.5,
    width: width - 1,
    height: height - 1,
    rx: 8,
  })
  return `${element('svg', attributes, [`<style>${styles}</style>`, ground, ...content])}\n`
}

const styles = `
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2933}
.title{font-size:16px;font-weight:600}.head{font-size:13px;font-weight:600}.small{font-size:12px}
.faint{font-size:11px;fill:#52606d}
.ground{fill:#ffffff;stroke:#cbd2d9}.grid{stroke:#e4e7eb;stroke-width:1}.axis{stroke:#7b8794;stroke-width:1}
.ours{stroke:#1d5fd1;fill:none;stroke-width:2.2}.theirs{stroke:#c2570c;fill:none;stroke-width:2.2}
.reference{stroke:#7b8794;fill:none;stroke-width:1.2;stroke-dasharray:2 4}.dashed{stroke-dasharray:7 4}
.ours-dot{fill:#1d5fd1}.theirs-dot{fill:#c2570c}
.halo{stroke:#ffffff;stroke-width:6}.bar{fill:#1d5fd1}
.bar-missed{fill:#c62828}.must{stroke:#c62828;stroke-width:2.5}.aim{stroke:#1b7f3b;stroke-width:2.5}
@media (prefers-color-scheme:dark){
text{fill:#e4e7eb}.faint{fill:#9aa5b1}
.ground{fill:#161b22;stroke:#3e4c59}.grid{stroke:#2b333d}.axis{stroke:#7b8794}
.ours{stroke:#6ea8fe}.theirs{stroke:#f59e5b}.ours-dot{fill:#6ea8fe}.theirs-dot{fill:#f59e5b}
.halo{stroke:#161b22}.bar{fill:#6ea8fe}.bar-missed{fill:#ff6b6b}.must{stroke:#ff6b6b}.aim{stroke:#4ade80}}
`

function attributeText(value: string | number): string {
  return typeof value === 'number' ? String(Math.round(value * 10) / 10) : value
}

function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}

/** Shows a place in a YAML text: the line, a caret, and no secrets. */
import { type Document, type LineCounter, isMap, isScalar, isSeq, visit } from 'yaml'
import { hideUrlPassword, isSecretKey } from '../protocol/config-problems.ts'
import { harmless } from './print.ts'
import { displayWidth, fitWidth } from './table.ts'

/** A problem at [from, to) of the text, in UTF-16 units. */
export interface TextProblem {
  readonly message: string
  readonly from: number
  readonly to: number
}

/** A problem with its place; `line` and `column` count from 1. */
export interface PlacedProblem {
  readonly message: string
  readonly line: number
  readonly column: number
  /** The line with a caret below, for a terminal. */
  readonly frame: string
}

/** A text whose places can be shown. */
export interface Frames {
  readonly text: string
  readonly lines: LineCounter
  /** Ranges of values that must not be shown. */
  readonly secrets: readonly (readonly [from: number, to: number])[]
}

const lineColumnsMax = 100
const hidden = '***'

export function newFrames(text: string, lines: LineCounter, document: Document.Parsed): Frames {
  const secrets: [number, number][] = []
  visit(document, {
    Pair(_, pair) {
      if (isScalar(pair.key) && isSecretKey(String(pair.key.value))) secrets.push(...scalarRanges(pair.value))
      return undefined
    },
  })
  return { text, lines, secrets }
}

/** Keys below a secret's key that only say where it is. */
const placeKeys = new Set(['file', 'env', 'command', 'timeout'])

function scalarRanges(node: unknown): [number, number][] {
  if (isScalar(node)) return node.range ? [[node.range[0], node.range[1]]] : []
  if (isSeq(node)) return node.items.flatMap(scalarRanges)
  if (!isMap(node)) return []
  return node.items.flatMap((pair) =>
    isScalar(pair.key) && placeKeys.has(String(pair.key.value)) ? [] : scalarRanges(pair.value),
  )
}

/** The place in numbers and as a line with a caret. */
export function showProblem(frames: Frames, problem: TextProblem): PlacedProblem {
  const from = Math.min(problem.from, frames.text.length)
  const { line, col } = frames.lines.linePos(from)
  const start = from - (col - 1)
  const end = endOfLine(frames.text, start)
  const shown = hideSecrets(frames, start, end)
  const before = harmless(hideSecrets(frames, start, from)).replace(/\t/g, ' ')
  const width = Math.max(1, Math.min(problem.to, end) - from)
  const head = `${String(line).padStart(4)} | `
  const full = harmless(shown).replace(/\t/g, ' ')
  const room = Math.max(1, displayWidth(full) - displayWidth(before))
  const carets = '^'.repeat(Math.max(1, Math.min(width, room, lineColumnsMax)))
  const caretLine =
    displayWidth(before) >= lineColumnsMax
      ? ''
      : `\n${' '.repeat(head.length + displayWidth(before))}${carets}`
  return {
    message: problem.message,
    line,
    column: col,
    frame: `${head}${fitWidth(full, lineColumnsMax)}`.trimEnd() + caretLine,
  }
}

function endOfLine(text: string, start: number): number {
  const end = /\r?\n|$/.exec(text.slice(start))?.index ?? 0
  return start + end
}

/**
 * The text from `start` to `end` with secrets replaced: by the document where it is sound, by the words where
 * not.
 */
function hideSecrets(frames: Frames, start: number, end: number): string {
  let shown = ''
  let at = start
  for (const [from, to] of frames.secrets) {
    if (to <= at || from >= end) continue
    shown += frames.text.slice(at, Math.max(at, from)) + hidden
    at = Math.min(end, to)
  }
  shown += frames.text.slice(at, end)
  const byWords = shown.replace(
    /(["']?[\w-]+["']?)(\s*:\s+)([^\s{[#*].*)$/,
    (whole, key: string, colon: string) =>
      isSecretKey(key.replace(/["']/g, '')) ? `${key}${colon}${hidden}` : whole,
  )
  return hideUrlPassword(byWords)
}

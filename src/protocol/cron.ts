/** The shape of a cron line: five fields. Only whether it can be understood; when it fires is the strategy's. */

interface CronField {
  readonly name: string
  readonly min: number
  readonly max: number
  readonly names: readonly string[]
}

const cronFields: readonly CronField[] = [
  { name: 'minute', min: 0, max: 59, names: [] },
  { name: 'hour', min: 0, max: 23, names: [] },
  { name: 'day of the month', min: 1, max: 31, names: [] },
  {
    name: 'month',
    min: 1,
    max: 12,
    names: ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'],
  },
  { name: 'day of the week', min: 0, max: 7, names: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] },
]

/** What is wrong with a cron line, as the end of "must …"; undefined when it is sound. */
export function cronProblem(text: string): string | undefined {
  const fields = text.trim().split(/\s+/)
  if (fields.length !== cronFields.length) {
    return 'must be a cron line of five fields: minute, hour, day of the month, month, day of the week'
  }
  for (const [at, field] of cronFields.entries()) {
    const value = fields[at] ?? ''
    if (!value.split(',').every((part) => isCronPart(part, field))) {
      const range = `from ${field.min} to ${field.max}`
      return `must be a cron line whose field ${at + 1} ("${value}") is the ${field.name}, ${range}`
    }
  }
  return undefined
}

/** `*`, `5`, `1-5`, `mon-fri`, each with an optional step: a star and `/15`. */
function isCronPart(part: string, field: CronField): boolean {
  const match = /^(?:\*|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:\/(\d+))?$/i.exec(part)
  if (match === null) return false
  const [, first, last, step] = match
  if (step !== undefined && (Number(step) < 1 || Number(step) > field.max)) return false
  if (first === undefined) return true
  const from = cronNumber(first, field)
  const to = last === undefined ? from : cronNumber(last, field)
  return from !== undefined && to !== undefined && from <= to
}

function cronNumber(text: string, field: CronField): number | undefined {
  const named = field.names.indexOf(text.toLowerCase())
  if (named >= 0) return named + field.min
  if (!/^\d{1,2}$/.test(text)) return undefined
  const value = Number(text)
  return value >= field.min && value <= field.max ? value : undefined
}

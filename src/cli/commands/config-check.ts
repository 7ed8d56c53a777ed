/** `backstock config check`: every error of the configuration at its place, as findings. */
import { FAILURES } from '../../base/failure.ts'
import type { InputOf } from '../commands.ts'
import { checkConfigFile, showPlaced } from '../config-file.ts'
import type { CommandContext } from '../context.ts'
import { formatCounted } from '../human.ts'
import { isAvailable } from '../pick-sources.ts'
import { printEvent, printFinding, printLine, printSummary } from '../print.ts'

export async function run(context: CommandContext, _input: InputOf<'config check'>): Promise<number> {
  const { printer } = context
  const checked = await checkConfigFile(context.configFile, context.cwd)
  if ('problems' in checked) {
    const { file, problems } = checked
    for (const problem of problems) {
      const { line, column, message } = problem
      printEvent(printer, { type: 'finding', severity: 'error', message, facts: { file, line, column } })
      printLine(printer, showPlaced(file, problem))
    }
    const summary = {
      type: 'summary',
      command: 'config check',
      file,
      errors: problems.length,
      warnings: 0,
    } as const
    printSummary(printer, summary, ['', formatCounted(problems.length, 'error')])
    return FAILURES['config.invalid'].exit
  }
  const { file, config, warnings } = checked.loaded
  const later = Object.entries(config.sources).filter(([, source]) => !isAvailable(source))
  const laterWarnings = later.map(
    ([name, source]) =>
      `the source "${name}" cannot be used: kind ${source.kind} is not available in this version`,
  )
  const all = [...warnings, ...laterWarnings]
  for (const message of all) printFinding(printer, { severity: 'warning', message, facts: { file } })
  const sources = Object.keys(config.sources).length
  printSummary(
    printer,
    { type: 'summary', command: 'config check', file, errors: 0, warnings: all.length, sources },
    [`${file} is sound: shop ${config.shop}, ${formatCounted(sources, 'source')}`],
  )
  return 0
}

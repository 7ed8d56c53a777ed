/** Many small files of 100 to 3000 bytes, as a shop has in caches, sessions and product records. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { setImmediate as yieldToSignals } from 'node:timers/promises'
import { createNoise, draw } from './noise.ts'
import { jsonRow } from './rows.ts'

const bytesMin = 100
const bytesMax = 3000
const folderCount = 128
const crowdedShare = 0.2
const yieldEvery = 2000

/** Writes `count` files below `root`: a fifth in one folder, the others 128 to a folder. */
export async function writeSmallFiles(root: string, count: number): Promise<void> {
  const noise = createNoise(`small files ${count}`)
  const crowdedCount = Math.floor(count * crowdedShare)
  mkdirSync(`${root}/sessions`, { recursive: true })
  for (let number = 0; number < count; number++) {
    const size = draw(noise, bytesMin, bytesMax)
    let text = ''
    while (text.length < size) text += jsonRow(noise, number)
    let folder = `${root}/sessions`
    if (number >= crowdedCount) {
      const place = Math.floor((number - crowdedCount) / folderCount)
      folder = `${root}/products/${Math.floor(place / folderCount)}/${place % folderCount}`
      if ((number - crowdedCount) % folderCount === 0) mkdirSync(folder, { recursive: true })
    }
    writeFileSync(`${folder}/record-${number}.json`, text.slice(0, size), 'latin1')
    if (number % yieldEvery === 0) await yieldToSignals()
  }
}

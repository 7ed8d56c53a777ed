/**
 * Rows of a shop's exports and logs: orders as CSV and JSON lines, and lines of a web server's access log.
 */
import { draw, noiseBytes, pick, type Noise } from './noise.ts'

const firstNames =
  'Anna Ben Carla David Emma Felix Greta Hans Ida Jonas Klara Leon Mia Noah Olga Paul Rosa'.split(' ')
const lastNames =
  'Schmidt Mueller Weber Fischer Wagner Becker Hoffmann Schulz Koch Bauer Richter Klein'.split(' ')
const cities = 'Berlin Hamburg Munich Cologne Frankfurt Stuttgart Leipzig Dresden Bremen Essen'.split(' ')
const statuses = 'paid shipped pending refunded cancelled'.split(' ')
const answers = [200, 200, 200, 200, 301, 404, 500]
const browsers = [
  'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36',
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15',
  'Googlebot/2.1 (+http://www.google.com/bot.html)',
]
const productCount = 20_000

/** One row with its line end. */
export type RowWriter = (noise: Noise, number: number) => string

/** The line of one order in an export. */
export const csvRow: RowWriter = (noise, number) => {
  const products = Array.from({ length: draw(noise, 1, 4) }, () => product(noise)).join('|')
  return (
    `${number},${moment(noise)},${customer(noise)},${mail(noise)},${pick(noise, cities)},` +
    `${money(noise)},${pick(noise, statuses)},${products},${token(noise)}\n`
  )
}

/** One order as a JSON line. */
export const jsonRow: RowWriter = (noise, number) => {
  const items = Array.from(
    { length: draw(noise, 1, 4) },
    () => `{"sku":"${product(noise)}","qty":${draw(noise, 1, 4)},"price":${money(noise)}}`,
  )
  return (
    `{"id":${number},"created":"${moment(noise)}","customer":"${customer(noise)}","email":"${mail(noise)}",` +
    `"city":"${pick(noise, cities)}","total":${money(noise)},"status":"${pick(noise, statuses)}",` +
    `"items":[${items.join(',')}],"token":"${token(noise)}"}\n`
  )
}

/** One request in the access log. */
export const logRow: RowWriter = (noise) => {
  const address = [draw(noise, 1, 223), draw(noise, 0, 255), draw(noise, 0, 255), draw(noise, 1, 254)].join(
    '.',
  )
  const time = `${two(draw(noise, 1, 30))}/Sep/2026:${clock(noise)} +0000`
  const path = `/product/${product(noise).toLowerCase()}?ref=${draw(noise, 1, 999_999)}`
  const answer = `${pick(noise, answers)} ${draw(noise, 200, 90_000)}`
  return `${address} - - [${time}] "GET ${path} HTTP/1.1" ${answer} "-" "${pick(noise, browsers)}"\n`
}

/** The readable columns of a table row, as the database pages hold them. */
export function tableText(noise: Noise): string {
  return `${customer(noise)}${mail(noise)}${pick(noise, cities)}${product(noise)}${pick(noise, statuses)}`
}

function customer(noise: Noise): string {
  return `${pick(noise, firstNames)} ${pick(noise, lastNames)}`
}

function mail(noise: Noise): string {
  return `${pick(noise, lastNames).toLowerCase()}${draw(noise, 1, 99_999)}@example.com`
}

function product(noise: Noise): string {
  return `SKU-${String(draw(noise, 0, productCount - 1)).padStart(5, '0')}`
}

function money(noise: Noise): string {
  return (draw(noise, 100, 99_999) / 100).toFixed(2)
}

function token(noise: Noise): string {
  return noiseBytes(noise, 16).toString('hex')
}

function moment(noise: Noise): string {
  return `2026-${two(draw(noise, 1, 9))}-${two(draw(noise, 1, 28))}T${clock(noise)}Z`
}

function clock(noise: Noise): string {
  return `${two(draw(noise, 0, 23))}:${two(draw(noise, 0, 59))}:${two(draw(noise, 0, 59))}`
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value)
}

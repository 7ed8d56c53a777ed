/**
 * The order database of the demo's shop: SQLite, with tables, indexes and changes as a shop has them. It is
 * closed whenever this returns, so that the file alone is the database.
 */
import { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { formatTime } from '../../base/clock.ts'
import { type Seeded, seededBelow, seededChoice } from './seeded.ts'

/** How the database is: what a restore must bring back. */
export interface OrderState {
  readonly orders: number
  /** Sum of all orders, in cents. */
  readonly turnover: number
  /** `ok`, or what SQLite's own check says. */
  readonly integrity: string
}

const SCHEMA = `
  CREATE TABLE customers
    (id INTEGER PRIMARY KEY, name TEXT, email TEXT, street TEXT, country TEXT, since TEXT);
  CREATE TABLE orders
    (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customers, placed TEXT, status TEXT, total INTEGER,
    note TEXT);
  CREATE TABLE order_items
    (id INTEGER PRIMARY KEY, "order" INTEGER REFERENCES orders, sku TEXT, quantity INTEGER, price INTEGER);
  CREATE INDEX orders_by_customer ON orders (customer);
  CREATE INDEX items_by_order ON order_items ("order");
`
const COUNTRIES = ['DE', 'AT', 'CH', 'FR', 'CN'] as const
const STATUSES = ['paid', 'packed', 'shipped', 'delivered'] as const
const ORDERS_PER_CUSTOMER = 4
const ITEMS_MAX = 5
/** When the shop took its first order; the time of the demo itself must not change its bytes. */
const OPENED = Date.UTC(2026, 0, 1)
const ORDER_EVERY_MS = 7 * 60_000
/** Orders between two pauses, in which a cancelling is noticed. */
const BATCH_ORDERS = 5000
/** Most changes are to young orders. */
const YOUNG_ORDERS = 2000

/** Makes the database with that many orders. */
export async function createOrders(
  file: string,
  orders: number,
  seeded: Seeded,
  signal: AbortSignal,
): Promise<void> {
  const database = new DatabaseSync(file)
  try {
    // Only while it is made: it is checked as a whole later.
    database.exec(`PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; BEGIN; ${SCHEMA}`)
    const customer = database.prepare(
      'INSERT INTO customers (name, email, street, country, since) VALUES (?, ?, ?, ?, ?)',
    )
    for (let id = 1; id <= Math.ceil(orders / ORDERS_PER_CUSTOMER); id++) {
      const since = formatTime(OPENED + id * ORDER_EVERY_MS)
      const street = `Straße ${seededBelow(seeded, 900)}`
      const country = seededChoice(seeded, COUNTRIES)
      customer.run(`customer ${id}`, `customer${id}@example.com`, street, country, since)
    }
    for (let done = 0; done < orders; done += BATCH_ORDERS) {
      placeOrders(database, Math.min(BATCH_ORDERS, orders - done), seeded)
      await setImmediate()
      signal.throwIfAborted()
    }
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}

/** A day in the shop: orders are placed, others move on. */
export function passOrders(file: string, counts: { placed: number; changed: number }, seeded: Seeded): void {
  const database = new DatabaseSync(file)
  try {
    database.exec('PRAGMA synchronous = OFF; BEGIN')
    placeOrders(database, counts.placed, seeded)
    const last = numberOf(database, 'SELECT max(id) AS value FROM orders')
    const change = database.prepare('UPDATE orders SET status = ?, note = ? WHERE id = ?')
    for (let i = 0; i < counts.changed; i++) {
      const among = i % 10 === 0 ? last : Math.min(last, YOUNG_ORDERS)
      const note = `parcel ${seededBelow(seeded, 1e9)}`
      change.run(seededChoice(seeded, STATUSES), note, last - seededBelow(seeded, among))
    }
    database.exec('COMMIT')
  } finally {
    database.close()
  }
}

function placeOrders(database: DatabaseSync, count: number, seeded: Seeded): void {
  const first = numberOf(database, 'SELECT count(*) + 1 AS value FROM orders')
  const customers = numberOf(database, 'SELECT count(*) AS value FROM customers')
  const order = database.prepare('INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)')
  const item = database.prepare('INSERT INTO order_items ("order", sku, quantity, price) VALUES (?, ?, ?, ?)')
  for (let id = first; id < first + count; id++) {
    const items = Array.from({ length: 1 + seededBelow(seeded, ITEMS_MAX) }, () => ({
      sku: `SKU-${10_000 + seededBelow(seeded, 50_000)}`,
      quantity: 1 + seededBelow(seeded, 3),
      price: 199 + seededBelow(seeded, 20_000),
    }))
    const total = items.reduce((sum, { quantity, price }) => sum + quantity * price, 0)
    const placed = formatTime(OPENED + id * ORDER_EVERY_MS)
    order.run(id, 1 + seededBelow(seeded, customers), placed, 'placed', total, 'no note')
    for (const { sku, quantity, price } of items) item.run(id, sku, quantity, price)
  }
}

/** Asks SQLite itself whether the database is whole; changes nothing. */
export function inspectOrders(file: string): OrderState {
  const database = new DatabaseSync(file, { readOnly: true })
  try {
    const { integrity_check: integrity } = database.prepare('PRAGMA integrity_check').get() ?? {}
    return {
      orders: numberOf(database, 'SELECT count(*) AS value FROM orders'),
      turnover: numberOf(database, 'SELECT sum(total) AS value FROM orders'),
      integrity: String(integrity),
    }
  } finally {
    database.close()
  }
}

function numberOf(database: DatabaseSync, query: string): number {
  return Number(database.prepare(query).get()?.['value'])
}

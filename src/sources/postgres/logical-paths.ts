/** What the snapshots of dumped servers are called, and where what they hold lies in their trees. */
export const LOGICAL_KIND = 'postgres-logical'

export const LOGICAL_PATHS = {
  globals: '/globals.sql',
  databases: '/databases',
  server: '/server.json',
} as const

/** Of server.json, what a restore looks at. */
export interface DumpRecord {
  /** Files in the folder of the databases, by name. */
  readonly dumps: readonly { readonly file: string; readonly database: string }[]
}

/** What the snapshots of dumped servers are called, and where what they hold lies in their trees. */
export const LOGICAL_KIND = 'postgres-logical'

export const LOGICAL_PATHS = {
  globals: '/globals.sql',
  databases: '/databases',
  server: '/server.json',
} as const

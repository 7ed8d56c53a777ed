/** Where a snapshot holds what of a cluster; all raw. */
export const CLUSTER_PATHS = {
  /** The data folder. */
  data: '/data',
  /** One folder for each tablespace, named by its number. */
  tablespaces: '/tablespaces',
  /** Configuration that lies outside of the data folder, each file below it by its absolute path. */
  config: '/config',
  /** What the server said of itself (server-config.ts). */
  server: '/server.json',
} as const

/** Where a snapshot holds what of a cluster; all raw. */
export const CLUSTER_PATHS = {
  /** The data folder. */
  data: '/data',
  /** One folder for each tablespace, named by its number. */
  tablespaces: '/tablespaces',
} as const

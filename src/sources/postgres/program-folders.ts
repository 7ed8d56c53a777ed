/** Where packages put the programs of PostgreSQL, by major version. */
const PLACES: readonly ((major: number) => string)[] = [
  (major) => `/usr/lib/postgresql/${major}/bin`, //            Debian, Ubuntu
  (major) => `/usr/pgsql-${major}/bin`, //                     PostgreSQL's own for Red Hat and others
  (major) => `/usr/lib/postgresql${major}/bin`, //             SUSE
  (major) => `/usr/libexec/postgresql${major}`, //             Alpine
  (major) => `/opt/homebrew/opt/postgresql@${major}/bin`, //   Homebrew
  (major) => `/usr/local/opt/postgresql@${major}/bin`,
  (major) => `/home/linuxbrew/.linuxbrew/opt/postgresql@${major}/bin`,
  (major) => `/Applications/Postgres.app/Contents/Versions/${major}/bin`,
]

/** Folders that may be there. */
export function programFolders(major: number): string[] {
  return PLACES.map((place) => place(major))
}

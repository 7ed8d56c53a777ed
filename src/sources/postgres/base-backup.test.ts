/** Against a real server: every file is what the server's own manifest says. */
import assert from 'node:assert/strict'
import { chownSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import {
  dropPostgres,
  makePostgres,
  postgresFolder,
  sql,
  type PostgresServer,
} from '../../../test/harness/postgres.ts'
import { fakePostgres, row } from '../../../test/harness/fake-postgres.ts'
import { runBaseBackup, type BaseBackup, type BaseBackupOptions } from './base-backup.ts'
import { addCrc32c, CRC32C_START, endCrc32c } from './crc32c.ts'
import { closeReplication, openReplication, resumeReplication } from './replication.ts'
import type { TarMember } from './tar-reader.ts'

const skip = postgresFolder() === undefined ? 'PostgreSQL is not installed' : false
let server: PostgresServer
let space = ''

before(
  async () => {
    if (skip !== false) return
    server = await makePostgres({ settings: ['archive_mode = on', "archive_command = 'false'"] })
    space = join(server.dir, 'space')
    mkdirSync(space)
    const { uid, gid } = statSync(server.data)
    chownSync(space, uid, gid)
    sql(
      server,
      'create table plain as select i, repeat(i::text, 20) note from generate_series(1, 50000) i',
      'create unlogged table fleeting as select 1 i',
    )
    sql(server, `create tablespace elsewhere location '${space}'`)
    sql(server, 'create table far tablespace elsewhere as select generate_series(1, 20000) i')
  },
  { timeout: 60_000 },
)
after(async () => {
  if (skip === false) await dropPostgres(server)
})

interface Taken {
  readonly tablespace: number
  readonly member: TarMember
  sum: number
  bytes: number
}

async function takeBackup(
  options: Partial<BaseBackupOptions> = {},
): Promise<{ backup: BaseBackup; files: Taken[]; manifest: string }> {
  const { port, major } = server
  const place = { host: '127.0.0.1', port, user: 'postgres', password: undefined, connectTimeoutMs: 10_000 }
  const replication = await openReplication({ ...place, tls: false })
  const files: Taken[] = []
  const parts: Buffer[] = []
  let pieces = 0
  try {
    const wanted = {
      major,
      label: "it's a test",
      checkpoint: 'fast',
      rateKilobytesMax: undefined,
      includesLog: false,
      verifiesChecksums: true,
      ...options,
    } as const
    const backup = await runBaseBackup(replication, wanted, {
      onMember: (tablespace, member) => files.push({ tablespace, member, sum: CRC32C_START, bytes: 0 }),
      onBytes: (bytes) => {
        const file = files.at(-1)!
        file.sum = addCrc32c(file.sum, bytes, 0, bytes.length)
        file.bytes += bytes.length
        if (++pieces % 50 !== 0) return false
        setImmediate(() => resumeReplication(replication))
        return true
      },
      onManifest: (bytes) => {
        parts.push(Buffer.from(bytes))
        setImmediate(() => resumeReplication(replication))
        return true
      },
    })
    return { backup, files, manifest: Buffer.concat(parts).toString('utf8') }
  } finally {
    closeReplication(replication)
  }
}

interface ManifestFile {
  readonly Path: string
  readonly Size: number
  readonly Checksum: string
}

test(
  'runBaseBackup() hands out every file as the manifest says it is',
  { skip, timeout: 60_000 },
  async () => {
    const { backup, files, manifest } = await takeBackup()
    const listed = (JSON.parse(manifest) as { Files: ManifestFile[] }).Files
    const spacePath = (oid: number): string => (oid === 0 ? '' : `pg_tblspc/${oid}/`)
    const plain = files.filter(({ member }) => member.type === 'file')
    const found = plain.map(({ tablespace, member, sum, bytes }) => {
      assert.equal(bytes, member.bytes, member.path)
      const checksum = Buffer.alloc(4)
      checksum.writeUInt32LE(endCrc32c(sum))
      return { path: `${spacePath(tablespace)}${member.path}`, bytes, checksum: checksum.toString('hex') }
    })
    const byPath = (a: { path: string }, b: { path: string }): number => (a.path < b.path ? -1 : 1)
    // The manifest does not list what the backup itself adds but backup_label, nor the folders of the log.
    assert.deepEqual(
      found.filter(({ path }) => path !== 'tablespace_map').sort(byPath),
      listed
        .map(({ Path, Size, Checksum }) => ({ path: Path, bytes: Size, checksum: Checksum }))
        .filter(({ path }) => path !== 'tablespace_map')
        .sort(byPath),
    )
    assert.ok(backup.end > backup.start && backup.timeline === 1)
    assert.deepEqual(
      backup.tablespaces.map(({ location }) => location),
      [space],
    )
    const own = plain.filter(({ tablespace }) => tablespace === 0).map(({ member }) => member.path)
    assert.equal(own.at(0), 'backup_label')
    assert.equal(own.at(-1), 'global/pg_control')
    const [fleeting = ''] = sql(server, "select pg_relation_filepath('fleeting')")
    assert.ok(!own.includes(fleeting) && own.includes(`${fleeting}_init`))
    assert.ok(!own.some((path) => path.startsWith('pg_wal/')))
  },
)

test(
  'a rate that the server does not take is refused, another one is taken',
  { skip, timeout: 60_000 },
  async () => {
    const refused = takeBackup({ rateKilobytesMax: 1 })
    await assert.rejects(
      refused,
      (error) => isFailure(error, 'source.failed') && /range|outside/.test(error.message),
    )
    const { files } = await takeBackup({ rateKilobytesMax: 1_048_576, checkpoint: 'fast' })
    assert.ok(files.length > 500)
  },
)

test('a standby that went to another timeline meanwhile has no backup', async () => {
  const fake = await fakePostgres((command) =>
    command.startsWith('BASE_BACKUP') ? [row('0/2000028', '1'), row('0/3000100', '2')] : [],
  )
  const place = { host: '127.0.0.1', port: fake.port, user: 'backup', password: undefined }
  const replication = await openReplication({ ...place, connectTimeoutMs: 5000, tls: false })
  const nothing = (): void => undefined
  const events = { onMember: nothing, onBytes: nothing, onManifest: nothing }
  const options = {
    major: 15,
    label: 'switched',
    checkpoint: 'fast',
    rateKilobytesMax: undefined,
    includesLog: true,
    verifiesChecksums: false,
  } as const
  try {
    await assert.rejects(
      runBaseBackup(replication, options, events),
      (error) => isFailure(error, 'source.failed') && /timeline 1 to 2/.test(error.message),
    )
  } finally {
    closeReplication(replication)
    await fake.close()
  }
})

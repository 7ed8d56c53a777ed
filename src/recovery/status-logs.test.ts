import { strict as assert } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openHostFolder } from '../repo/host-folder.ts'
import type { Access } from '../repo/keys.ts'
import { openLogWriter, putLog } from '../repo/log-writer.ts'
import { NO_NOTES } from '../sources/postgres/log-notes.ts'
import { encodeNotes } from '../sources/postgres/notes-codec.ts'
import { logClock, makeLogWorld, newShipper, nextPiece, type LogWorld } from '../../test/harness/logs.ts'
import { backUp, dropRepository, folderSource, makeRepository } from '../../test/harness/engine.ts'
import { repositoryStatus, type SourceStatus } from './status.ts'

const folder = mkdtempSync(join(tmpdir(), 'backstock-status-logs-'))
after(() => rmSync(folder, { recursive: true }))

const now = logClock.now()
const span = (from: number, to: number) => ({ from: BigInt(from), to: BigInt(to) })

async function look(
  world: LogWorld,
  at: number,
  access: Access = world.owner,
): Promise<{ source: SourceStatus | undefined; codes: string[] }> {
  const host = openHostFolder(folder, world.kit.repository)
  const wanted = { configured: ['orders'], streamed: ['orders'], named: [], now: at }
  const { sources, warnings } = await repositoryStatus(access, host, wanted)
  const codes = warnings
    .filter(({ code }) => code.startsWith('log.'))
    .map((one) => `${one.code} ${one.severity}`)
  return { source: sources[0], codes }
}

test('repositoryStatus() tells until when the log is there, by its marks or by its headers', async () => {
  const world = await makeLogWorld()
  assert.deepEqual([(await look(world, now)).source?.log, (await look(world, now)).codes], [undefined, []])
  const shipper = newShipper(world.writer)
  const marks = [{ lsn: 20n, serverTime: BigInt(now - 7000) * 1000n, receivedAt: now - 7000 }]
  const notes = encodeNotes({ ...NO_NOTES, marks })
  await putLog(world.writer, nextPiece(shipper, 'segment', span(0, 20), { notes }))
  const { source, codes } = await look(world, now)
  const { domain } = world.writer
  assert.deepEqual(source?.log, { domain, timeline: 1, lsn: 20n, until: now - 7000, gap: undefined })
  assert.deepEqual(codes, [])
  assert.equal((await look(world, now, world.access)).source?.log?.until, now, 'a writer reads no marks')
  assert.deepEqual((await look(world, now + 293_001)).codes, ['log.late warning'])
})

test('repositoryStatus() tells a gap', async () => {
  const world = await makeLogWorld()
  const shipper = newShipper(world.writer)
  await putLog(world.writer, nextPiece(shipper, 'segment', span(0, 20)))
  await putLog(
    world.writer,
    nextPiece(newShipper(world.writer, { shipper: 'ee'.repeat(8) }), 'segment', span(30, 40)),
  )
  const { source, codes } = await look(world, now)
  assert.equal(source?.log?.gap, 'from 0/14 to 0/1E on timeline 1')
  assert.deepEqual(codes, ['log.gap error'])
})

test('repositoryStatus() tells a backed up source whose log is configured and not there', async () => {
  const repository = await makeRepository()
  try {
    await backUp(repository, folderSource(folder, { name: 'orders' }))
    const wanted = { configured: ['orders'], streamed: ['orders'], named: [], now }
    const { warnings } = await repositoryStatus(repository.access, repository.host, wanted)
    const ofLog = warnings.find(({ code }) => code === 'log.none')
    assert.deepEqual([ofLog?.severity, ofLog?.source], ['error', 'orders'])
  } finally {
    dropRepository(repository)
  }
})

test('repositoryStatus() counts no log of another cluster than the latest snapshot is of', async () => {
  const repository = await makeRepository()
  try {
    const writer = await openLogWriter(repository.access)
    await putLog(writer, nextPiece(newShipper(writer, { branch: '71-00000001' }), 'segment', span(0, 20)))
    const backUpOf = async (branch: string): Promise<unknown> =>
      await backUp(
        repository,
        folderSource(folder, { name: 'orders', logRange: () => ({ branch, from: 5n, to: 10n, held: 10n }) }),
      )
    const wanted = { configured: ['orders'], streamed: ['orders'], named: [], now }
    const seen = async (): Promise<unknown[]> => {
      const { warnings, sources } = await repositoryStatus(repository.access, repository.host, wanted)
      const ofLog = warnings.filter(({ code }) => code.startsWith('log.'))
      return [sources[0]?.log?.lsn, ...ofLog.map(({ code, severity }) => `${code} ${severity}`)]
    }
    await backUpOf('71-00000001')
    assert.deepEqual(await seen(), [20n])
    await backUpOf('72-00000001')
    assert.deepEqual(await seen(), [undefined, 'log.none error'])
    await putLog(writer, nextPiece(newShipper(writer, { branch: '72-00000001' }), 'segment', span(5, 15)))
    assert.deepEqual(await seen(), [15n])
  } finally {
    dropRepository(repository)
  }
})

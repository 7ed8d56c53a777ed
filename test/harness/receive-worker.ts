/** A receiver in a process of its own: `node receive-worker.ts '{"folder":…,"port":…}'`. SIGTERM ends it. */
import { openSpool, closeSpool } from '../../src/sources/postgres/spool.ts'
import { formatLsn } from '../../src/sources/postgres/lsn.ts'
import { openReplication } from '../../src/sources/postgres/replication.ts'
import { receiveWal } from '../../src/sources/postgres/wal-receiver.ts'
import { systemClock } from '../../src/base/clock.ts'
import { placeOf, SLOT, type WorkerLine } from './receive-log.ts'

const job = JSON.parse(process.argv[2] ?? '') as { folder: string; port: number }
const control = new AbortController()
process.once('SIGTERM', () => control.abort())
const say = (line: WorkerLine): boolean => process.stdout.write(`${JSON.stringify(line)}\n`)
const spool = openSpool(job.folder, { bytesMax: 1 << 30, systemId: undefined })
await receiveWal(
  () => openReplication(placeOf(job)),
  spool,
  {
    slot: SLOT,
    start: undefined,
    clock: systemClock,
    signal: control.signal,
    timing: { pauseMsMin: 20, pauseMsMax: 200 },
  },
  {
    onDurable: ({ timeline, lsn }) => say({ timeline, lsn: formatLsn(lsn) }),
    onMark: () => undefined,
    onTimeline: () => undefined,
    onState: () => undefined,
  },
)
closeSpool(spool)

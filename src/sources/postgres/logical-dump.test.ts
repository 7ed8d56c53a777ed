import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { isFailure } from '../../base/failure.ts'
import { readDump, stopDumps, type DumpJob, type DumpRunner } from './logical-dump.ts'

function job(script: string): DumpJob {
  return {
    what: 'the database "x"',
    program: '/bin/sh',
    args: ['-c', script],
    env: { PATH: '/usr/bin:/bin' },
  }
}

function runner(signal?: AbortSignal): DumpRunner & { readonly said: string[] } {
  const said: string[] = []
  return { signal, warn: (text) => said.push(text), running: new Set(), said }
}

/** Gives some bytes, then nothing more until it is ended. */
const HANGS = 'echo begin; exec sleep 600'

test('readDump() gives all that a program writes, and warns of what it said', async () => {
  const dumps = runner()
  const parts: Uint8Array[] = []
  for await (const part of readDump(dumps, job('head -c 3000000 /dev/zero; echo careful >&2')))
    parts.push(part)
  assert.equal(Buffer.concat(parts).length, 3_000_000)
  assert.deepEqual(dumps.said, ['the database "x": careful'])
  assert.equal(dumps.running.size, 0)
})

test('readDump() ends a program that hangs when the run is cancelled', async () => {
  const control = new AbortController()
  const dumps = runner(control.signal)
  const content = readDump(dumps, job(HANGS))
  assert.equal((await content.next()).done, false)
  const [child] = dumps.running
  assert.ok(child)
  control.abort()
  await assert.rejects(content.next(), (error) => isFailure(error, 'cancelled'))
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  assert.equal(child.signalCode, 'SIGKILL')
  await assert.rejects(readDump(dumps, job('echo more')).next(), (error) => isFailure(error, 'cancelled'))
})

test('stopDumps() ends what a reader has left', async () => {
  const dumps = runner()
  await readDump(dumps, job(HANGS)).next()
  const [child] = dumps.running
  assert.ok(child)
  const ended = once(child, 'exit')
  stopDumps(dumps)
  assert.deepEqual(await ended, [null, 'SIGKILL'])
})

test('readDump() fails with what the program said, or when there is none', async () => {
  const all = async (wanted: DumpJob): Promise<void> => {
    for await (const _ of readDump(runner(), wanted));
  }
  const failsAs = (pattern: RegExp) => (error: unknown) =>
    isFailure(error, 'source.failed') && pattern.test(error.message)
  await assert.rejects(all(job('echo half; echo broken pipe >&2; exit 3')), failsAs(/status 3: broken pipe$/))
  await assert.rejects(all({ ...job(''), program: '/no-such/pg_dump' }), failsAs(/ENOENT/))
})

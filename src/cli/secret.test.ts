import assert from 'node:assert/strict'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { SecretConfig } from '../protocol/config.ts'
import { isFailure } from '../base/failure.ts'
import { readSecret } from './secret.ts'

const warnings: string[] = []

async function read(from: SecretConfig, signal = new AbortController().signal): Promise<string> {
  const env = { PASS: 'from env\n', PATH: process.env['PATH'] }
  return readSecret('repository.passphrase', from, { env, signal, warn: (text) => warnings.push(text) })
}

async function failureOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => assert.fail('it was read'),
    (reason: unknown) => reason,
  )
  assert.ok(isFailure(error), String(error))
  return `${error.code}: ${error.message}`
}

test('readSecret() reads a file, a variable and a command, without the last line break', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'backstock-secret-'))
  t.after(() => rm(dir, { recursive: true }))
  const file = join(dir, 'pass')
  await writeFile(file, 'two\nlines\r\n', { mode: 0o600 })
  assert.equal(await read({ file }), 'two\nlines')
  assert.equal(warnings.length, 0)
  await chmod(file, 0o644)
  await read({ file })
  assert.match(warnings.pop() ?? '', /every user of this host may read it/)
  assert.equal(await read({ env: 'PASS' }), 'from env')
  assert.equal(await read({ command: ['printf', '%s\n\n', 'a b'] }), 'a b\n')
  assert.equal(await read({ command: 'echo "$PASS" | tr a-z A-Z' }), 'FROM ENV\n')
})

test('readSecret() says what is missing', async () => {
  assert.match(await failureOf(read({ env: 'NONE' })), /^config.invalid: .*NONE is not set/)
  assert.match(await failureOf(read({ file: '/nonexistent/pass' })), /^host.file: .*no such file/)
  assert.match(await failureOf(read({ command: ['/nonexistent/program'] })), /^host.hook: .*is not there/)
  assert.match(await failureOf(read({ command: 'exit 3' })), /^host.hook: .*status 3/)
  assert.match(await failureOf(read({ command: 'kill -9 $$' })), /^host.hook: .*SIGKILL/)
  assert.match(await failureOf(read({ command: 'true' })), /^config.invalid: .*is empty/)
})

test('readSecret() bounds the time and the length of a command', async () => {
  assert.match(await failureOf(read({ command: ['sleep', '60'], timeout: 0.05 })), /longer than 0.05 s/)
  assert.match(await failureOf(read({ command: ['cat', '/dev/zero'] })), /more than 65536 bytes/)
})

test('readSecret() does not wait for a program left in the background', async () => {
  assert.equal(await read({ command: 'sleep 60 & echo $!', timeout: 20 }).then(stop), true)
})

function stop(pid: string): boolean {
  return process.kill(Number(pid))
}

test('readSecret() can be cancelled', async () => {
  const stopping = new AbortController()
  const reading = read({ command: ['sleep', '60'] }, stopping.signal)
  stopping.abort()
  assert.match(await failureOf(reading), /^cancelled/)
})

test('no failure repeats what a command printed', async () => {
  assert.doesNotMatch(await failureOf(read({ command: 'echo hunter2; exit 1' })), /: .*hunter2/)
})

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { execCommand } from './exec.ts'

function collected(): { lines: string[]; onLine: (line: string) => void } {
  const lines: string[] = []
  return { lines, onLine: (line) => void lines.push(line) }
}

test('execCommand() runs text by the shell and a list as it is, both streams to the log', async () => {
  const { lines, onLine } = collected()
  const options = { env: { ...process.env, WORD: 'there' }, timeoutSeconds: 20, onLine }
  assert.equal(await execCommand('echo "hello $WORD"; echo oops >&2', options), undefined)
  assert.deepEqual(lines.toSorted(), ['hello there', 'oops'])
  assert.equal(await execCommand([process.execPath, '-e', 'console.log("a  $WORD")'], options), undefined)
  assert.ok(lines.includes('a  $WORD'))
})

test('execCommand() says how a program ended', async () => {
  const options = { env: process.env, timeoutSeconds: 20, onLine: () => undefined }
  assert.equal(await execCommand('exit 3', options), 'it ended with status 3')
  assert.equal(await execCommand('kill -TERM $$', options), 'it was ended by SIGTERM')
  assert.equal(await execCommand(['/nonexistent/program'], options), '"/nonexistent/program" is not there')
})

test('execCommand() ends a program that takes too long, with what it started', async () => {
  const { lines, onLine } = collected()
  const options = { env: process.env, timeoutSeconds: 0.3, onLine }
  // The inner sleep would hold the pipe open for a minute.
  assert.equal(await execCommand('echo begun; sleep 60 & wait', options), 'it took longer than 0.3 s')
  assert.deepEqual(lines, ['begun'])
})

test('execCommand() ends a program when the run is cancelled, and starts none after', async () => {
  const cancelling = new AbortController()
  const { signal } = cancelling
  const options = { env: process.env, timeoutSeconds: 60, signal, onLine: () => cancelling.abort() }
  assert.equal(await execCommand('echo begun; sleep 60', options), 'it was ended: the run is cancelled')
  assert.equal(await execCommand('echo begun', options), 'it was not started: the run is cancelled')
})

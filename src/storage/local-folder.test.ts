/** Processes that die in a put at every system call, and processes that race for names. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { it, type TestContext } from 'node:test'
import { assertSameBytes, namesOf, patternOf } from '../../test/contract/store-asserts.ts'
import { filesBelow } from '../../test/harness/local-place.ts'
import { localStore } from './local.ts'

async function newFolder(context: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
  context.after(() => rm(path, { recursive: true, force: true }))
  return path
}

const PRELUDE = `
  import { localStore } from ${JSON.stringify(import.meta.resolve('./local.ts'))}
  import { hookedCalls } from ${JSON.stringify(import.meta.resolve('../../test/harness/local-place.ts'))}
  import { patternOf } from ${JSON.stringify(import.meta.resolve('../../test/contract/store-asserts.ts'))}
`

/** Node running a program of the given text; killed with the test. */
function startProgram(context: TestContext, text: string, args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, ['--input-type=module', '-e', PRELUDE + text, '--', ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  context.after(() => child.kill('SIGKILL'))
  return child
}

async function linesOf(child: ChildProcess): Promise<string[]> {
  assert.ok(child.stdout)
  const lines: string[] = []
  for await (const line of createInterface({ input: child.stdout })) lines.push(line)
  return lines
}

/**
 * Dies just before its system call number `at` of one put in a new folder, with half of the bytes of a write
 * written.
 */
const DIES_AT_CALL = `
  const [path, at] = process.argv.slice(1)
  let calls = -Infinity
  const store = await localStore(path, { calls: hookedCalls(async (call, args) => {
    if (calls++ !== Number(at)) return
    if (call === 'write') (await import('node:fs')).writeSync(args[0], args[1], 0, args[1].length >> 1)
    process.kill(process.pid, 'SIGKILL')
  }) })
  calls = 0
  console.log(await store.put('d/x', patternOf(100_000)))
`

it('`localStore()` leaves all or nothing of a blob when it dies at any system call', async (context) => {
  const seen = { none: 0, whole: 0, leftovers: 0 }
  let isDone = false
  for (let at = 0; !isDone; at++) {
    assert.ok(at < 40, 'a put has fewer calls')
    const path = await newFolder(context)
    const lines = await linesOf(startProgram(context, DIES_AT_CALL, [path, String(at)]))
    isDone = lines[0] === 'created'
    const store = await localStore(path)
    const stat = await store.stat('d/x')
    seen[stat === undefined ? 'none' : 'whole'] += 1
    if (stat !== undefined) assertSameBytes(await store.get('d/x'), patternOf(100_000))
    assert.deepEqual(await namesOf(store, ''), stat === undefined ? [] : ['d/x'])
    seen.leftovers += await store.sweep(0)
    assert.equal(await store.put('d/x', patternOf(100_000)), stat === undefined ? 'created' : 'identical')
    assert.deepEqual(await filesBelow(path), ['d/', 'd/x'])
  }
  // Every kind of end was met: else the enumeration has missed the calls that matter.
  assert.ok(seen.none >= 8 && seen.whole >= 4 && seen.leftovers >= 4, JSON.stringify(seen))
})

/** Puts blob after blob and says so, until it is killed. */
const PUTS_UNTIL_KILLED = `
  const store = await localStore(process.argv[1])
  for (let at = 0; ; at++) {
    await Promise.all([0, 1, 2, 3].map(async (part) => {
      await store.put(\`p\${part}/n\${at}\`, patternOf(300_000 + at))
      console.log(\`p\${part}/n\${at}\`)
    }))
  }
`

it('`localStore()` keeps every acknowledged blob whole when its process is killed', async (context) => {
  const path = await newFolder(context)
  const child = startProgram(context, PUTS_UNTIL_KILLED, [path])
  assert.ok(child.stdout)
  const acknowledged: string[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    acknowledged.push(line)
    if (acknowledged.length === 50) child.kill('SIGKILL')
  }
  const store = await localStore(path)
  const names = await namesOf(store, '')
  for (const name of acknowledged) assert.ok(names.includes(name), `${name} was acknowledged`)
  for (const name of names) {
    assertSameBytes(await store.get(name), patternOf(300_000 + Number(name.slice(name.indexOf('n') + 1))))
  }
  await store.sweep(0)
  assert.deepEqual(
    (await filesBelow(path)).filter((name) => name.includes('.tmp')),
    [],
  )
})

/** Puts its own bytes under 100 names once it is told to begin; says which it created. */
const RACES_FOR_NAMES = `
  const [path, mark] = process.argv.slice(1)
  const store = await localStore(path)
  console.log('ready')
  await new Promise((resolve) => process.stdin.once('data', resolve))
  for (let at = 0; at < 100; at++) {
    const put = store.put(\`r\${at % 7}/n\${at}\`, Buffer.alloc(1000, Number(mark)))
    console.log(await put.catch((error) => error.code))
  }
  process.exit()
`

it('`localStore()` lets exactly one of several processes create a name', async (context) => {
  const path = await newFolder(context)
  const children = [1, 2, 3, 4].map((mark) => startProgram(context, RACES_FOR_NAMES, [path, String(mark)]))
  await Promise.all(
    children.map(async (child) => {
      assert.ok(child.stdout)
      await once(child.stdout, 'readable')
    }),
  )
  const answers = children.map(linesOf)
  for (const child of children) child.stdin?.write('go\n')
  const results = (await Promise.all(answers)).map((lines) => lines.filter((line) => line !== 'ready'))
  const store = await localStore(path)
  for (let at = 0; at < 100; at++) {
    const said = results.map((lines) => lines[at] ?? '')
    assert.deepEqual(said.toSorted(), ['created', 'storage.exists', 'storage.exists', 'storage.exists'])
    assertSameBytes(await store.get(`r${at % 7}/n${at}`), Buffer.alloc(1000, said.indexOf('created') + 1))
  }
})

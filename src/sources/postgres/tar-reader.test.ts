import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../base/failure.ts'
import { endTar, feedTar, newTarReader, type TarMember } from './tar-reader.ts'

interface Read {
  readonly member: TarMember
  content: Buffer
}

function readTar(archive: Buffer, pieces: readonly number[]): Read[] {
  const all: Read[] = []
  const reader = newTarReader({
    onMember: (member) => all.push({ member, content: Buffer.alloc(0) }),
    onBytes: (bytes) => {
      const last = all.at(-1)!
      last.content = Buffer.concat([last.content, bytes])
    },
  })
  for (let at = 0, turn = 0; at < archive.length; turn++) {
    const piece = pieces[turn % pieces.length]!
    feedTar(reader, archive.subarray(at, at + piece))
    at += piece
  }
  endTar(reader)
  return all
}

/** What tar itself makes of a small tree. */
function sampleTar(): { archive: Buffer; sizes: Map<string, number>; mode: number } {
  const folder = mkdtempSync(join(tmpdir(), 'backstock-tar-'))
  try {
    const long = `${'d'.repeat(90)}/${'f'.repeat(60)}`
    const sizes = new Map([
      ['base/1', 8192],
      ['base/empty', 0],
      ['base/odd', 777],
      ['exact', 512],
      [long, 3],
    ])
    for (const name of ['base', 'd'.repeat(90), 'pg_tblspc']) mkdirSync(join(folder, name))
    for (const [name, bytes] of sizes)
      writeFileSync(join(folder, name), Buffer.alloc(bytes, bytes & 255), { mode: 0o600 })
    symlinkSync('/srv/space', join(folder, 'pg_tblspc/16400'))
    const archive = execFileSync('tar', ['--format=ustar', '-C', folder, '-cf', '-', '.'], {
      maxBuffer: 1 << 24,
    })
    return { archive, sizes, mode: statSync(join(folder, 'exact')).mode & 0o7777 }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

test('feedTar() reads what tar wrote, whatever pieces it comes in', () => {
  const { archive, sizes, mode } = sampleTar()
  const whole = readTar(archive, [archive.length])
  const files = whole.filter(({ member }) => member.type === 'file')
  assert.deepEqual(new Map(files.map(({ member }) => [member.path, member.bytes])), sizes)
  for (const { member, content } of files) {
    assert.ok(content.equals(Buffer.alloc(member.bytes, member.bytes & 255)), member.path)
    assert.deepEqual([member.mode, member.uid], [mode, process.getuid?.()])
    assert.ok(Math.abs(member.mtimeSeconds - Date.now() / 1000) < 600)
  }
  const link = whole.find(({ member }) => member.type === 'symlink')
  assert.deepEqual([link?.member.path, link?.member.target], ['pg_tblspc/16400', '/srv/space'])
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 9 }), (pieces) => {
      assert.deepEqual(readTar(archive, pieces), whole)
    }),
    { numRuns: 50 },
  )
})

test('an archive that is cut, damaged or leads out of itself is refused', () => {
  const { archive } = sampleTar()
  const refused = (bytes: Buffer): void =>
    assert.throws(
      () => readTar(bytes, [700]),
      (error) => isFailure(error, 'source.failed'),
    )
  refused(archive.subarray(0, 100))
  const first = readTar(archive, [archive.length]).find(({ content }) => content.length > 512)
  assert.ok(first)
  for (const at of [0, 100, 124, 150, 156, 257]) {
    const damaged = Buffer.from(archive)
    damaged[at]! ^= 4
    refused(damaged)
  }
  refused(Buffer.concat([Buffer.alloc(1024), archive]))
  for (const name of ['../outside', '/absolute', 'a/../../b']) refused(header({ name }))
  refused(header({ name: 'a pipe', type: '6' }))
})

test('sizes of 8 GiB and more are read', () => {
  const bytes = 2 ** 33 + 5
  const members: TarMember[] = []
  const reader = newTarReader({ onMember: (member) => members.push(member), onBytes: () => undefined })
  feedTar(reader, header({ name: 'large', bytes }))
  assert.equal(members[0]?.bytes, bytes)
  assert.throws(
    () => endTar(reader),
    (error) => isFailure(error, 'source.failed'),
  )
})

function header({ name, type = '0', bytes = 0 }: { name: string; type?: string; bytes?: number }): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0)
  for (const at of [100, 108, 116, 136]) block.write('0000000\0', at)
  block[124] = 0x80
  block.writeBigUInt64BE(BigInt(bytes), 128)
  block.write(type, 156)
  block.write('ustar\x0000', 257, 'latin1')
  block.write('        ', 148)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

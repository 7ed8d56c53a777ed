import { strict as assert } from 'node:assert'
import { test } from 'node:test'
import fc from 'fast-check'
import { testSeed } from '../../test/harness/engine.ts'
import { decodeBech32, encodeBech32 } from './bech32.ts'

const seed = testSeed()
const ALPHABET = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'

test('encodeBech32() gives the vectors of BIP 173 that are whole bytes', () => {
  const words = Buffer.from('00443214c74254b635cf84653a56d7c675be77df', 'hex')
  assert.equal(encodeBech32('abcdef', words), 'abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw')
  assert.equal(decodeBech32('a', 'A12UEL5L')?.length, 0)
})

test(`any bytes come back; a changed, lost or added character is seen (SEED=${seed})`, () => {
  const change = fc.record({ at: fc.nat(), char: fc.constantFrom(...ALPHABET.split('')) })
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), change, (bytes, { at, char }) => {
      const text = encodeBech32('age', bytes)
      assert.deepEqual(decodeBech32('age', text), Buffer.from(bytes))
      assert.deepEqual(decodeBech32('age', text.toUpperCase()), Buffer.from(bytes))
      assert.equal(decodeBech32('ag', text), undefined)
      const place = 4 + (at % (text.length - 4))
      const [before, after] = [text.slice(0, place), text.slice(place + 1)]
      if (text[place] !== char) assert.equal(decodeBech32('age', before + char + after), undefined)
      for (let length = 0; length < text.length; length++)
        assert.equal(decodeBech32('age', text.slice(0, length)), undefined, `cut to ${length}`)
    }),
    { seed },
  )
})

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { testStore } from '../../test/contract/store-contract.ts'
import { localStore } from './local.ts'

for (const blocking of [false, true]) {
  testStore(blocking ? 'local, blocking' : 'local', async () => {
    const path = await mkdtemp(join(tmpdir(), 'backstock-local-'))
    return {
      store: await localStore(path, { blocking }),
      reopen: () => localStore(path, { blocking }),
      remove: () => rm(path, { recursive: true, force: true }),
    }
  })
}

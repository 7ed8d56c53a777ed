/** What crosses the port between portStore() and servePort(). */
import type { FailureCode, FailureFacts } from '../base/failure.ts'
import type { BlobStat, StoreCapabilities } from './store.ts'

export type PortCall =
  | { readonly call: 'describe' }
  | { readonly call: 'put'; readonly name: string; readonly bytes: Uint8Array }
  | {
      readonly call: 'get'
      readonly name: string
      readonly offset: number | undefined
      readonly length: number | undefined
    }
  | { readonly call: 'stat' | 'delete'; readonly name: string }
  | { readonly call: 'sweep'; readonly olderThanMs: number }
  /** Opens a list; its number is the answer. */
  | { readonly call: 'list'; readonly prefix: string }
  /** The next stats of an open list; none: it has ended and is closed. */
  | { readonly call: 'next' | 'leave'; readonly list: number }

/** A call and the number that its answer bears; or the wish that a call under way should stop. */
export type PortRequest = ({ readonly id: number } & PortCall) | { readonly abort: number }

export interface PortDescription {
  readonly location: string
  readonly capabilities: StoreCapabilities
}

export type PortValue =
  | PortDescription
  | Uint8Array
  | BlobStat
  | readonly BlobStat[]
  | string
  | number
  | undefined

export interface PortReply {
  readonly id: number
  readonly value?: PortValue
  readonly failure?: { readonly code: FailureCode; readonly message: string; readonly facts: FailureFacts }
  /** The message of an error that is no Failure. */
  readonly bug?: string
  /** The buffer of a put, for its sender to use again. */
  readonly returned?: ArrayBuffer
}

/**
 * Fetches a secret from where the configuration says: a file, the environment, a command. Never from the
 * command line, which every user of the host can see. The secret is returned and never printed, not even in
 * failures.
 */
import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { Failure, describeError, errnoOf } from '../base/failure.ts'
import type { ProgramConfig, SecretConfig } from '../protocol/config.ts'
import { isWorldReadable } from './config-file.ts'

export interface SecretOptions {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
  /** Told when everybody may read the secret's file. */
  readonly warn: (text: string) => void
}

const secretBytesMax = 64 * 1024
const commandSecondsDefault = 30
const pipeGraceMs = 500

/**
 * The secret, without the line break at its end. `name` is its place in the configuration, for messages.
 * Fails: config.invalid (no such variable, empty), host.file, host.hook (the command), cancelled.
 */
export async function readSecret(name: string, from: SecretConfig, options: SecretOptions): Promise<string> {
  const raw = await rawSecret(name, from, options)
  const secret = raw.replace(/\r?\n$/, '')
  if (secret === '') throw new Failure('config.invalid', `Cannot use the secret ${name}: it is empty`)
  return secret
}

async function rawSecret(name: string, from: SecretConfig, options: SecretOptions): Promise<string> {
  if ('file' in from) return readSecretFile(name, from.file, options)
  if ('command' in from)
    return runSecretCommand(name, from.command, from.timeout ?? commandSecondsDefault, options)
  const value = options.env[from.env]
  if (value !== undefined) return value
  throw new Failure('config.invalid', `Cannot read the secret ${name}: the variable ${from.env} is not set`, {
    facts: { hint: `Set ${from.env} in the environment of this command.` },
  })
}

async function readSecretFile(name: string, file: string, options: SecretOptions): Promise<string> {
  let bytes: Buffer
  try {
    bytes = await readFile(file, { signal: options.signal })
  } catch (cause) {
    if (options.signal.aborted) throw cancelled(cause)
    const is = errnoOf(cause) === 'ENOENT' ? 'there is no such file' : describeError(cause)
    throw new Failure('host.file', `Cannot read the secret ${name} from "${file}": ${is}`, {
      facts: { file },
      cause,
    })
  }
  if (bytes.length > secretBytesMax) throw tooLong(name)
  if (await isWorldReadable(file)) {
    options.warn(`"${file}" holds a secret and every user of this host may read it: chmod 600 "${file}"`)
  }
  return bytes.toString('utf8')
}

function tooLong(name: string): Failure {
  return new Failure(
    'config.invalid',
    `Cannot use the secret ${name}: it has more than ${secretBytesMax} bytes`,
  )
}

function cancelled(cause: unknown): Failure {
  return new Failure('cancelled', 'Cancelled', { cause })
}

/**
 * What the command prints. Its stderr goes to ours, where it can ask; its stdin is empty, ours may be a
 * backup.
 */
async function runSecretCommand(
  name: string,
  command: ProgramConfig,
  timeoutSeconds: number,
  options: SecretOptions,
): Promise<string> {
  const fail = (is: string, cause?: unknown): Failure =>
    new Failure('host.hook', `Cannot read the secret ${name}: its command ${is}`, { cause })
  const limit = AbortSignal.timeout(timeoutSeconds * 1000)
  const [file = '', ...words] = typeof command === 'string' ? ['/bin/sh', '-c', command] : command
  const child = spawn(file, words, {
    env: options.env,
    stdio: ['ignore', 'pipe', 'inherit'],
    signal: AbortSignal.any([limit, options.signal]),
    killSignal: 'SIGKILL',
  })
  const chunks: Buffer[] = []
  let length = 0
  child.stdout.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > secretBytesMax) child.kill('SIGKILL')
    else chunks.push(chunk)
  })
  const ended = await new Promise<{ code: number | null; sign: string | null; error?: unknown }>(
    (resolve) => {
      child.once('error', (error) => resolve({ code: null, sign: null, error }))
      child.once('close', (code, sign) => resolve({ code, sign }))
      // A program left behind in the background may hold the pipe open for ever.
      child.once('exit', (code, sign) => setTimeout(() => resolve({ code, sign }), pipeGraceMs))
    },
  )
  child.stdout.destroy()
  if (options.signal.aborted) throw cancelled(ended.error)
  if (limit.aborted) throw fail(`took longer than ${timeoutSeconds} s`, ended.error)
  if (length > secretBytesMax) throw tooLong(name)
  if (ended.error !== undefined) {
    throw fail(
      errnoOf(ended.error) === 'ENOENT' ? `"${file}" is not there` : describeError(ended.error),
      ended.error,
    )
  }
  if (ended.code !== 0)
    throw fail(ended.sign === null ? `ended with status ${ended.code}` : `was ended by ${ended.sign}`)
  return Buffer.concat(chunks).toString('utf8')
}

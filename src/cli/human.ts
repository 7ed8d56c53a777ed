/**
 * Numbers and times for people: bytes, rates, counts, durations, times. Pure. JSON gets the plain numbers
 * instead.
 */
import { formatTime } from '../base/clock.ts'

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `0 B`, `999 B`, `1.50 KiB`, `27.4 MiB`, `310 GiB`: three digits. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  // 999.5 would be shown as 1000: then the next unit reads better.
  while (Math.abs(value) >= 999.5 && unit < byteUnits.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2
  return `${value.toFixed(digits)} ${byteUnits[unit] ?? ''}`
}

/** `120 MiB/s` */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`
}

/** `1 234 567`; the spaces group, they do not break lines. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, '\u00a0')
}

/** `1 file`, `1 234 files` */
export function formatCounted(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`
}

/** `340 ms`, `4.2 s`, `2 min 05 s`, `3 h 07 min`, `2 d 04 h`; milliseconds in. */
export function formatDuration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds)
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 9950) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`
  const hours = Math.round(minutes / 60)
  return `${Math.floor(hours / 24)} d ${pad(hours % 24)} h`
}

/** What is left, for a narrow place: `0:07`, `12:34`, `3:07:00`; at most 99 hours. */
export function formatCountdown(seconds: number): string {
  const whole = Math.min(Math.max(0, Math.round(seconds)), 99 * 3600)
  const hours = Math.floor(whole / 3600)
  const minutes = Math.floor(whole / 60) % 60
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`
}

/** An ISO 8601 time of whole seconds: UTC with `Z`, or the host's zone with its offset. */
export function formatMoment(milliseconds: number, zone: 'utc' | 'local'): string {
  if (zone === 'utc') return `${formatTime(milliseconds).slice(0, -5)}Z`
  const offset = -new Date(milliseconds).getTimezoneOffset()
  const sign = offset < 0 ? '-' : '+'
  const minutes = Math.abs(offset)
  const local = formatTime(milliseconds + offset * 60_000).slice(0, -5)
  return `${local}${sign}${pad(Math.floor(minutes / 60))}:${pad(minutes % 60)}`
}

function pad(value: number): string {
  return String(value).padStart(2, '0')
}

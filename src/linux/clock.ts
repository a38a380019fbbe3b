import { checked, clockGettime, littleEndian } from './foreign.ts';

const CLOCK_REALTIME = 0;

/** A `struct timespec`: seconds and nanoseconds, of 64 bits each. */
const time = new DataView(new ArrayBuffer(16));
const result = Buffer.from(time.buffer);

/** Reads the machine's clock: the whole microseconds that have passed since the epoch. Takes a fifth of one. */
export function realtimeUs(): number {
  checked(clockGettime(CLOCK_REALTIME, result), 'clock_gettime');
  const nanoseconds = time.getUint32(littleEndian ? 8 : 12, littleEndian);
  return Number(time.getBigInt64(0, littleEndian)) * 1_000_000 + Math.floor(nanoseconds / 1000);
}

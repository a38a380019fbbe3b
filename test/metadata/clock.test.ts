import { describe, expect, test as plain } from 'vitest';
import { realtimeUs } from '../../src/linux/clock.ts';
import { checked, clockGettime } from '../../src/linux/foreign.ts';
import { Clock, nowUs } from '../../src/metadata/clock.ts';
import { test } from '../support/fixtures.ts';

/** The machine's clock in nanoseconds, as other programs read it. */
function realtimeNs(): bigint {
  const time = Buffer.alloc(16);
  checked(clockGettime(0, time), 'clock_gettime');
  return time.readBigInt64LE(0) * 1_000_000_000n + time.readBigInt64LE(8);
}

/** A clock that is read at these times, in microseconds; after the last, a microsecond passes at each reading. */
function clockThatReads(...times: number[]): Clock {
  let now = 0;
  return new Clock(() => (now = times.shift() ?? now + 1));
}

describe('Clock', () => {
  plain('a time is the next microsecond, and is given when it has begun', () => {
    const readings = [1000, 1000, 1000, 1001];
    expect(clockThatReads(...readings).next()).toBe(1001);
    // It has been read until then.
    const read: number[] = [];
    const clock = new Clock(() => {
      const now = readings.shift() ?? 0;
      read.push(now);
      return now;
    });
    expect([clock.next(), read]).toEqual([1001, [1000, 1000, 1000, 1001]]);
  });

  plain('changes within one microsecond have times one after the other', () => {
    const clock = clockThatReads(1000, 1001, 1001, 1002, 1002, 1003);
    expect([clock.next(), clock.next(), clock.next()]).toEqual([1001, 1002, 1003]);
  });

  plain('a clock that is set forward is followed', () => {
    const clock = clockThatReads(1000, 1001, 9_000_000_000, 9_000_000_001);
    expect([clock.next(), clock.next()]).toEqual([1001, 9_000_000_001]);
  });

  plain('a clock that is set back by up to a minute is waited for, without running further ahead', () => {
    const clock = clockThatReads(
      70_000_000,
      70_000_001,
      10_000_001,
      10_000_500,
      69_999_999,
      70_000_003,
      70_000_004,
    );
    expect([clock.next(), clock.next(), clock.next(), clock.next(), clock.next()]).toEqual([
      70_000_001, 70_000_002, 70_000_003, 70_000_004, 70_000_005,
    ]);
  });

  plain('a clock that was a minute and more in the future is not believed any longer', () => {
    const clock = clockThatReads(90_000_000, 90_000_001, 10_000_000, 10_000_001, 10_000_001, 10_000_002);
    expect([clock.next(), clock.next(), clock.next()]).toEqual([90_000_001, 10_000_001, 10_000_002]);
  });

  plain('a clock that is set back while it is waited for does not hold anybody up', () => {
    expect(clockThatReads(1000, 1000, 10).next()).toBe(1001);
  });
});

plain('realtimeUs() is the clock of the machine', () => {
  const before = realtimeNs();
  const us = BigInt(realtimeUs());
  const after = realtimeNs();
  expect(us).toBeGreaterThanOrEqual(before / 1000n);
  expect(us).toBeLessThanOrEqual(after / 1000n);
  expect(Math.abs(realtimeUs() / 1000 - Date.now())).toBeLessThan(60_000);
});

plain('nowUs() is after what came before, has begun when it is given, and is later at each call', () => {
  const times = Array.from({ length: 2000 }, () => {
    const before = realtimeNs();
    const us = BigInt(nowUs());
    return [before, us * 1000n, realtimeNs()] as const;
  });
  expect(times.filter(([before, us, after]) => us < before || us > after)).toEqual([]);
  expect(times.filter(([, us], at) => us <= (times[at - 1]?.[1] ?? 0n))).toEqual([]);
});

test('the times of changes lie between the call and its answer, on the clock of the machine', async ({
  driver,
}) => {
  const timed = async (call: () => Promise<unknown>, key: string): Promise<void> => {
    const before = realtimeNs();
    await call();
    const after = realtimeNs();
    const updated = BigInt((await driver.stat(key)).updatedUs) * 1000n;
    expect({ early: updated < before, late: updated > after }).toEqual({ early: false, late: false });
  };
  for (let number = 0; number < 30; number += 1) {
    await timed(() => driver.prepare(`k${number}`), `k${number}`);
    await timed(() => driver.update(`k${number}`, { labels: { number: `${number}` } }), `k${number}`);
    await timed(() => driver.commit(`n${number}`, `k${number}`), `n${number}`);
  }
});

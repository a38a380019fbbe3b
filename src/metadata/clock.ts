import { realtimeUs } from '../linux/clock.ts';

/** How far a clock may be set back without being followed, in microseconds: more is the end of a wrong time. */
const SET_BACK_US = 60_000_000;

/**
 * Gives changes their times. Each is the next whole microsecond of the machine's clock, and has begun when it is given:
 * so it is neither before anything that was done earlier nor in the future, and no two changes have the same time.
 */
export class Clock {
  readonly #read: () => number;
  #last = -Infinity;

  /** @param read gives the time in whole microseconds, of those that have passed */
  constructor(read: () => number) {
    this.#read = read;
  }

  /**
   * A time in microseconds since the epoch, later than the last one. If the clock was set back by up to a minute, it is
   * one microsecond later than that, until the clock has caught up; if it was set back further, the clock is followed.
   */
  next(): number {
    let now = this.#read();
    const isWrong = this.#last - now > SET_BACK_US;
    const us = isWrong ? now + 1 : Math.max(now, this.#last) + 1;
    // It is to have begun. This ends at once if the clock is behind.
    while (us - now === 1) now = this.#read();
    this.#last = us;
    return us;
  }
}

const clock = new Clock(realtimeUs);

/** The time of a change, which is made at once: see `Clock.next`. */
export function nowUs(): number {
  return clock.next();
}

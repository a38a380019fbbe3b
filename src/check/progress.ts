import type { CheckProgress, Step } from '../report.ts';

/** How often progress is reported, in milliseconds. */
const INTERVAL_MS = 100;

/** Ends a check that has reached its time limit. */
export class TimeOver extends Error {}

/** Counts what a step has checked, reports it, and enforces the time limit. */
export class Progress {
  readonly #report: (progress: CheckProgress) => void;
  readonly #deadline: number;
  #step: Step = 'database';
  #checked = 0;
  #total: number | null = null;
  #reported = 0;

  /** `deadline` is a time of `performance.now()`. */
  constructor(report: (progress: CheckProgress) => void, deadline: number) {
    this.#report = report;
    this.#deadline = deadline;
  }

  /** Begins a step. */
  begin(step: Step): void {
    this.#step = step;
    this.#checked = 0;
    this.#total = null;
    this.#reported = performance.now();
    this.#report({ step, checked: 0, total: null });
  }

  /** How many things this step has checked. */
  get checked(): number {
    return this.#checked;
  }

  /** Sets how many things this step is going to check. */
  expect(total: number): void {
    this.#total = total;
  }

  /** Adds to what was checked. To enforce the time limit in between, add 0. @throws {TimeOver} */
  advance(count = 1): void {
    this.#checked += count;
    const now = performance.now();
    if (now > this.#deadline) throw new TimeOver();
    if (now - this.#reported < INTERVAL_MS) return;
    this.#reported = now;
    this.#report({ step: this.#step, checked: this.#checked, total: this.#total });
  }
}

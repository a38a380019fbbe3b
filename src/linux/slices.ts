import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long work holds the event loop at a time, in milliseconds. */
const SLICE_MS = 6;

/** Who looks on while work goes on in slices. */
export interface SliceOptions {
  /** Ends the work: it throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called between slices, and between the parts of what is large; what it throws ends the work. */
  readonly onSlice?: (() => void) | undefined;
}

/** Tells when work has held the event loop for long enough. */
export class TimeSlice {
  readonly #watch: SliceOptions;
  #until = 0;

  constructor(watch: SliceOptions) {
    this.#watch = watch;
  }

  /** Whether it is time to rest. */
  get due(): boolean {
    return performance.now() >= this.#until;
  }

  /** Gives the event loop its turn. */
  async rest(): Promise<void> {
    await nextTurn();
    this.#watch.signal?.throwIfAborted();
    this.#until = performance.now() + SLICE_MS;
  }
}

/**
 * Calls `visit` for each item, one after the other, giving the event loop its turn in between, so that it is never
 * held for long. An item that is `undefined` only stands for time that was taken.
 */
export async function inSlices<T>(
  items: Iterable<T | undefined>,
  visit: (item: T) => void | Promise<void>,
  watch: SliceOptions = {},
): Promise<void> {
  const pace = new TimeSlice(watch);
  // Each slice in a turn of its own, the first one too.
  await pace.rest();
  for (const item of items) {
    const visiting = item === undefined ? undefined : visit(item);
    if (visiting !== undefined) await visiting;
    if (!pace.due) continue;
    watch.onSlice?.();
    await pace.rest();
  }
}

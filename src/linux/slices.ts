import { setImmediate as nextTurn } from 'node:timers/promises';

/** The length of a slice: how long work holds the event loop at a time, in milliseconds. */
const SLICE_MS = 6;

/** Cancellation and progress of work that is done in slices. */
export interface SliceOptions {
  /** Ends the work, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called between slices, and between the parts of a large file. An error that it throws ends the work. */
  readonly onSlice?: (() => void) | undefined;
}

/** The time for which work may hold the event loop. The first slice has expired already. */
export class TimeSlice {
  readonly #signal: AbortSignal | undefined;
  #end = 0;

  constructor({ signal }: Pick<SliceOptions, 'signal'>) {
    this.#signal = signal;
  }

  get expired(): boolean {
    return performance.now() >= this.#end;
  }

  /**
   * Lets the event loop run once, then begins a new slice.
   *
   * @throws the signal's reason
   */
  async renew(): Promise<void> {
    await nextTurn();
    this.#signal?.throwIfAborted();
    this.#end = performance.now() + SLICE_MS;
  }
}

/**
 * Calls `visit` for each item, one after the other, and lets the event loop run between slices. An item that is
 * `undefined` is not visited: it only gives an opportunity to end the slice.
 */
export async function inSlices<T>(
  items: Iterable<T | undefined>,
  visit: (item: T) => void | Promise<void>,
  { signal, onSlice }: SliceOptions = {},
): Promise<void> {
  const slice = new TimeSlice({ signal });
  await slice.renew();
  for (const item of items) {
    const visiting = item === undefined ? undefined : visit(item);
    if (visiting !== undefined) await visiting;
    if (!slice.expired) continue;
    onSlice?.();
    await slice.renew();
  }
}

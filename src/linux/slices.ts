import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long work holds the event loop at a time, in milliseconds. */
const SLICE_MS = 6;

/** Who looks on while work goes on in slices. */
export interface Watch {
  /** Ends the work: it throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called between slices, and between the parts of what is large; what it throws ends the work. */
  readonly onSlice?: (() => void) | undefined;
}

/**
 * Calls `visit` for each item, one after the other, giving the event loop its turn in between, so that it is never
 * held for long. An item that is `undefined` only stands for time that was taken.
 */
export async function inSlices<T>(
  items: Iterable<T | undefined>,
  visit: (item: T) => void | Promise<void>,
  { signal, onSlice }: Watch = {},
): Promise<void> {
  // Each slice in a turn of its own, the first one too.
  await nextTurn();
  signal?.throwIfAborted();
  let until = performance.now() + SLICE_MS;
  for (const item of items) {
    const visiting = item === undefined ? undefined : visit(item);
    if (visiting !== undefined) await visiting;
    if (performance.now() < until) continue;
    onSlice?.();
    await nextTurn();
    signal?.throwIfAborted();
    until = performance.now() + SLICE_MS;
  }
}

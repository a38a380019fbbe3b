import { escapeHidden } from './quote.ts';

/**
 * Makes a function for a timer, an event or a callback. Nobody can catch what is thrown there, and it would end the
 * process: what `body` throws goes to `onError` (default: `warn`), which must not throw.
 */
export function guarded<Args extends unknown[]>(
  body: (...args: Args) => void,
  onError: (error: unknown) => void = (error) => warn(error),
): (...args: Args) => void {
  return (...args) => {
    try {
      body(...args);
    } catch (error) {
      onError(error);
    }
  };
}

/** Emits an `OverliteWarning` for an error that no caller waits for. `what` says what has failed. It never throws. */
export function warn(error: unknown, what = 'something in the background has failed'): void {
  process.emitWarning(escapeHidden(`${what}: ${String(error)}`), 'OverliteWarning');
}

import { setTimeout as sleep } from 'node:timers/promises';
import { SnapshotError, isBusy } from '../errors.ts';
import type { Closing } from './closing.ts';

/** How long SQLite itself waits for a lock, in milliseconds: it sleeps on the event loop's thread. */
export const SQLITE_BUSY_TIMEOUT_MS = 2;

/** How long a caller waits for another process's lock by default, in milliseconds. */
export const DEFAULT_BUSY_TIMEOUT_MS = 30_000;

/**
 * Calls `attempt` until it does not find the database locked, waiting between tries for a random
 * while that leaves the event loop free, so that two waiters do not keep meeting.
 *
 * @param closing says when the store is being closed, which ends the waiting sooner
 * @throws {SnapshotError} UNAVAILABLE if it is still locked after `timeoutMs`
 * @throws {SnapshotError} FAILED_PRECONDITION if it is still locked and the store is being closed
 */
export async function retryWhileBusy<T>(
  attempt: () => T,
  timeoutMs: number,
  doing: string,
  closing?: Closing,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (let longest = 2; ; longest = Math.min(longest * 2, 32)) {
    try {
      return attempt();
    } catch (error) {
      if (!isBusy(error)) throw error;
      closing?.checkPatience();
      if (performance.now() >= deadline) {
        throw new SnapshotError('UNAVAILABLE', `${doing}: the database was locked for ${timeoutMs} ms`, {
          hint: 'see which process holds it, or raise busyTimeout',
          cause: error,
        });
      }
    }
    await sleep(1 + Math.random() * longest);
  }
}

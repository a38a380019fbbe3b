import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SnapshotError } from '../errors.ts';
import { tryLock } from '../linux/file-calls.ts';
import { quote } from '../quote.ts';

/** How long to pause between two tries, in milliseconds. */
const PAUSE_MS = 10;

/**
 * The lock on the directory of a database, by flock(2). All who have the database open share it, and a restoration,
 * which replaces the database, takes it alone. It is seen in every container, which the locks of SQLite are not, though
 * they hold there too, and it ends with the process.
 */
export class StoreLock {
  #fd: number | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Takes the lock together with all others who do. Somebody who has it alone is waited for.
   *
   * @throws {SnapshotError} UNAVAILABLE if somebody has it alone for longer than `timeoutMs`
   */
  static async share(directory: string, timeoutMs: number): Promise<StoreLock> {
    const fd = openToLock(directory);
    try {
      for (const deadline = performance.now() + timeoutMs; !tryLock(fd, { shared: true });) {
        if (performance.now() >= deadline) {
          throw new SnapshotError(
            'UNAVAILABLE',
            `somebody has had the store in ${quote(directory)} alone for ${timeoutMs} ms`,
            { hint: 'wait until the restoration is done that is under way' },
          );
        }
        await sleep(PAUSE_MS);
      }
      return new StoreLock(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Takes the lock alone.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if anybody else has it
   */
  static takeAlone(directory: string): StoreLock {
    const fd = openToLock(directory);
    if (tryLock(fd)) return new StoreLock(fd);
    closeSync(fd);
    throw new SnapshotError('FAILED_PRECONDITION', `a process has the store in ${quote(directory)} open`, {
      hint: 'stop that process first; it may be in a container, where it is not seen from here',
    });
  }

  /** May be called more than once. */
  release(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function openToLock(directory: string): number {
  return openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
}

import { closeSync, constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { tryLock } from '../linux/file-calls.ts';
import type { Layout } from './layout.ts';

/**
 * The lock on the directory of an id. It goes with the process that holds it, in whatever container that runs; process
 * ids would say nothing there. Who makes a copy holds it for as long as the id is only reserved, and so says that the
 * copy is alive; who mounts a layer holds it while making sure that nobody else does.
 */
export class DirectoryLock {
  readonly id: number;
  #fd: number | undefined;

  private constructor(id: number, fd: number) {
    this.id = id;
    this.#fd = fd;
  }

  /**
   * Takes the lock on a directory that is there. `undefined` if someone else has it.
   *
   * @throws what the operating system says if there is no such directory
   */
  static take(layout: Layout, id: number): DirectoryLock | undefined {
    const fd = openSync(
      layout.directory(id),
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    );
    try {
      if (tryLock(fd)) return new DirectoryLock(id, fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    return undefined;
  }

  /** Takes the lock on a directory that was made a moment ago. */
  static takeNew(layout: Layout, id: number): DirectoryLock {
    const lock = DirectoryLock.take(layout, id);
    if (lock === undefined) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `someone else has locked the directory of snapshot ${id}`,
      );
    }
    return lock;
  }

  /** Lets go of the lock. May be called more than once. */
  release(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

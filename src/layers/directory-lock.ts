import { closeSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { tryLock } from '../linux/file-calls.ts';
import type { HeldRoot } from './held-root.ts';

/**
 * The lock on the directory of an id. It ends with the process that holds it, even in another container, where a
 * process ID would mean nothing. A process that makes a copy holds it while the id is only reserved, which shows that
 * the copy is alive. A process that mounts a layer holds it while it checks that nobody else has mounted that.
 */
export class DirectoryLock {
  readonly id: number;
  #fd: number | undefined;

  private constructor(id: number, fd: number) {
    this.id = id;
    this.#fd = fd;
  }

  /**
   * Takes the lock on a directory.
   *
   * @returns `undefined` if someone else has it
   * @throws a system error if the directory is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if something is mounted on it
   */
  static take(root: HeldRoot, id: number): DirectoryLock | undefined {
    return DirectoryLock.#take(root.open(id), id);
  }

  /**
   * Takes the lock on the layer of an id, which says that somebody is at work for it: the process that runs a command
   * in a workspace of its own holds it until it has removed or committed that. It does not exclude mounting.
   *
   * @returns `undefined` if someone else has it
   * @throws a system error if the layer is missing
   */
  static takeLayer(root: HeldRoot, id: number): DirectoryLock | undefined {
    return DirectoryLock.#take(root.open(id, 'fs'), id);
  }

  /**
   * Takes the lock on a layer that has just been made.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if someone else has it
   */
  static takeNewLayer(root: HeldRoot, id: number): DirectoryLock {
    return DirectoryLock.#mustTake(DirectoryLock.takeLayer(root, id), id);
  }

  static #take(fd: number, id: number): DirectoryLock | undefined {
    try {
      if (tryLock(fd)) return new DirectoryLock(id, fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    return undefined;
  }

  /**
   * Takes the lock on a directory that has just been made.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if someone else has it
   */
  static takeNew(root: HeldRoot, id: number): DirectoryLock {
    return DirectoryLock.#mustTake(DirectoryLock.take(root, id), id);
  }

  static #mustTake(lock: DirectoryLock | undefined, id: number): DirectoryLock {
    if (lock !== undefined) return lock;
    throw new SnapshotError('FAILED_PRECONDITION', `someone else has locked the directory of snapshot ${id}`);
  }

  /** Releases the lock. May be called more than once. */
  release(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

import { closeSync } from 'node:fs';
import { close } from './fs-promises.ts';

/**
 * The same as `Promise.all`, except that all have ended when it is rejected: calls on other threads must have ended
 * before their descriptors are closed, since others may get the same numbers next.
 */
export async function allEnded<T extends readonly unknown[] | []>(
  promises: T,
): Promise<{ -readonly [P in keyof T]: Awaited<T[P]> }> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/**
 * Open descriptors that are closed together, the last one first: by `using` on this thread, by `await using` off it.
 */
export class Descriptors implements Disposable, AsyncDisposable {
  #opened: number[] = [];

  get all(): readonly number[] {
    return this.#opened;
  }

  /** Takes over a descriptor. @returns the descriptor */
  add(fd: number): number {
    this.#opened.push(fd);
    return fd;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#takeAll()) closeSync(fd);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const fd of this.#takeAll()) await close(fd);
  }

  #takeAll(): number[] {
    const opened = this.#opened.toReversed();
    this.#opened = [];
    return opened;
  }
}

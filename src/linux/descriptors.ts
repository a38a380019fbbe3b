import { closeSync } from 'node:fs';
import { close } from './fs-promises.ts';

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

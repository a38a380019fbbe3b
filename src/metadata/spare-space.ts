import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';

/**
 * What a removal needs at the most: the index of the log, where its process is the first to open the database; a
 * checkpoint that lets the database grow; and the frames of one transaction.
 */
const RESERVE_BYTES = 131_072;

/**
 * Some disk space set aside in a file, so that when the disk is full the store can still be opened, and what frees
 * space still has room for its own transaction.
 */
export class SpareSpace {
  readonly #path: string;
  #held = false;

  constructor(path: string) {
    this.#path = path;
    this.hold();
  }

  /** Gives the space back that is set aside in a file. */
  static give(path: string): void {
    rmSync(path, { force: true });
  }

  /** Sets the space aside, if it is not and there is enough of it. */
  hold(): void {
    if (this.#held) return;
    try {
      // Not zeros, which some filesystems would not give any space.
      writeFileSync(this.#path, randomBytes(RESERVE_BYTES), { mode: 0o600 });
      this.#held = true;
    } catch {
      this.release();
    }
  }

  /** Gives the space back. */
  release(): void {
    SpareSpace.give(this.#path);
    this.#held = false;
  }
}

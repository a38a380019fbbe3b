import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';

/**
 * What a removal needs at the most: the index of the log, where its process is the first to open the database; a
 * checkpoint that lets the database grow; and the frames of one transaction.
 */
const SPARE_BYTES = 131_072;

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

  /** Frees the space that is set aside in a file. */
  static free(path: string): void {
    rmSync(path, { force: true });
  }

  /** Sets the space aside, unless it is already or there is too little. */
  hold(): void {
    if (this.#held) return;
    try {
      // Not zeros, which some filesystems would not give any space.
      writeFileSync(this.#path, randomBytes(SPARE_BYTES), { mode: 0o600 });
      this.#held = true;
    } catch {
      this.release();
    }
  }

  /** Frees the space. */
  release(): void {
    SpareSpace.free(this.#path);
    this.#held = false;
  }
}

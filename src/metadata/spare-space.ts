import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';

/**
 * The most that a removal needs, in bytes: the index of the log, if its process is the first to open the database; a
 * checkpoint that lets the database grow; and the frames of one transaction.
 */
const SPARE_BYTES = 131_072;

/**
 * Disk space set aside in a file. When the disk is full it is given up, so that the store can still be opened, and a
 * removal still has room for its transaction.
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

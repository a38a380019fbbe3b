import { type Hash, createHash } from 'node:crypto';

/** The size of a block, whatever the filesystem's own is: digests do not depend on that. */
export const BLOCK_BYTES = 4096;

const ZEROS = Buffer.alloc(BLOCK_BYTES);
const NOTHING = Buffer.alloc(0);

/**
 * A SHA-256 over those blocks of a file that hold anything but zeros, and over where they are. So it depends on the
 * contents, and not on whether zeros were written or left as a hole.
 */
export class BlockHash {
  readonly #data = createHash('sha256');
  /** Over where they are, once that is not everywhere. */
  #places: Hash | undefined;
  /** The present run of blocks, which ends at what was added last but zeros. */
  #from = 0;
  #to = 0;

  /** Adds bytes of the file at an offset which is that of a block, behind what was added before. */
  add(bytes: Buffer, offset: number): void {
    let from = 0;
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const end = Math.min(at + BLOCK_BYTES, bytes.length);
      if (!isZero(bytes, at, end)) continue;
      this.#addRun(bytes, from, at, offset);
      from = end;
    }
    this.#addRun(bytes, from, bytes.length, offset);
  }

  /**
   * Ends the hash: nothing can be added any more.
   *
   * @returns the SHA-256 of the blocks; and the size and the SHA-256 of where they are, or nothing if that is everywhere
   */
  digest(size: number): [blocks: Buffer, places: Buffer] {
    if (this.#places === undefined && this.#from === 0 && this.#to === size) {
      return [this.#data.digest(), NOTHING];
    }
    return [this.#data.digest(), Buffer.from(`${size} ${this.#endRun().digest('hex')}`)];
  }

  #addRun(bytes: Buffer, from: number, to: number, offset: number): void {
    if (from === to) return;
    this.#data.update(from === 0 && to === bytes.length ? bytes : bytes.subarray(from, to));
    if (offset + from !== this.#to) {
      this.#endRun();
      this.#from = offset + from;
    }
    this.#to = offset + to;
  }

  /** @returns the hash over the places of all runs so far */
  #endRun(): Hash {
    this.#places ??= createHash('sha256');
    if (this.#from < this.#to) this.#places.update(`${this.#from} ${this.#to} `);
    return this.#places;
  }
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  // Most blocks that are not zeros begin with something else.
  return bytes[from] === 0 && bytes.compare(ZEROS, 0, to - from, from, to) === 0;
}

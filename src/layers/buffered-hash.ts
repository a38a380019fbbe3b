import { type Hash, createHash } from 'node:crypto';

/** How much is gathered before it is hashed: each call has its cost. */
const GATHER_BYTES = 16 * 1024;

/** A hash over many small pieces. */
export class BufferedHash {
  readonly #hash: Hash;
  readonly #buffer = Buffer.allocUnsafe(GATHER_BYTES);
  #used = 0;

  constructor(algorithm: 'sha1' | 'sha256') {
    this.#hash = createHash(algorithm);
  }

  add(bytes: Buffer): void {
    if (bytes.length > GATHER_BYTES) {
      this.#flush();
      this.#hash.update(bytes);
      return;
    }
    if (this.#used + bytes.length > GATHER_BYTES) this.#flush();
    this.#used += bytes.copy(this.#buffer, this.#used);
  }

  /** Adds bytes that are given as a character each. */
  addText(text: string): void {
    if (text.length > GATHER_BYTES) {
      this.add(Buffer.from(text, 'latin1'));
      return;
    }
    if (this.#used + text.length > GATHER_BYTES) this.#flush();
    this.#used += this.#buffer.write(text, this.#used, 'latin1');
  }

  /** The hash in hexadecimal digits. Nothing can be added any more. */
  get value(): string {
    this.#flush();
    return this.#hash.digest('hex');
  }

  #flush(): void {
    this.#hash.update(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}

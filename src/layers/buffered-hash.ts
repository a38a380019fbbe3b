import { type Hash, createHash } from 'node:crypto';

/** How many bytes are collected for one call of the hash, since each call has its cost. */
const BUFFER_BYTES = 16 * 1024;

/** A hash over many small pieces. */
export class BufferedHash {
  readonly #hash: Hash;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #used = 0;

  constructor(algorithm: 'sha1' | 'sha256') {
    this.#hash = createHash(algorithm);
  }

  add(bytes: Buffer): void {
    if (bytes.length > BUFFER_BYTES) {
      this.#flush();
      this.#hash.update(bytes);
      return;
    }
    if (this.#used + bytes.length > BUFFER_BYTES) this.#flush();
    this.#used += bytes.copy(this.#buffer, this.#used);
  }

  /** Adds text that has one character for each byte. */
  addText(text: string): void {
    if (text.length > BUFFER_BYTES) {
      this.add(Buffer.from(text, 'latin1'));
      return;
    }
    if (this.#used + text.length > BUFFER_BYTES) this.#flush();
    this.#used += this.#buffer.write(text, this.#used, 'latin1');
  }

  /** Ends the hash: nothing can be added any more. @returns it in hexadecimal digits */
  digest(): string {
    this.#flush();
    return this.#hash.digest('hex');
  }

  #flush(): void {
    this.#hash.update(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}

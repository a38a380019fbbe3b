import { closeSync } from 'node:fs';
import { errnoOf, isGone } from './errno.ts';
import { openAbove, openLongPathBeneath } from './file-calls.ts';
import { FileStatus } from './file-status.ts';

/** How many of the last directories are open, beside the root. */
const OPEN = 8;

/** A directory on the way. */
interface PassedDirectory {
  /** Its name in the one above. */
  readonly name: Buffer;
  /** `undefined` while it is not open. */
  fd: number | undefined;
  /** Known while it is not open. */
  identity: Uint32Array | undefined;
}

/**
 * The way from a directory down to one below it, at any depth. Only the first directory and the last ones are open; on
 * the way back the others are opened again, by `..`, or if a directory was moved meanwhile by the names from the root
 * down. Such a directory has to be the one that was closed, by device and inode.
 */
export class Descent implements Disposable {
  readonly #directories: PassedDirectory[];
  readonly #status = new FileStatus();

  /** Begins at an open directory, and takes over its descriptor. */
  constructor(root: number) {
    this.#directories = [{ name: Buffer.alloc(0), fd: root, identity: undefined }];
  }

  /** How many directories the way has: 1 at its root, and 0 once that was left. */
  get length(): number {
    return this.#directories.length;
  }

  /** The descriptor of the directory at the end of the way. */
  get fd(): number {
    const fd = this.#directories.at(-1)?.fd;
    if (fd === undefined) throw new Error('the way has no end');
    return fd;
  }

  /** The descriptor of the directory at its beginning. */
  get root(): number {
    const fd = this.#directories[0]?.fd;
    if (fd === undefined) throw new Error('the way has no beginning');
    return fd;
  }

  /** The name of the directory at the end of the way, in the one above. */
  get name(): Buffer {
    return this.#directories.at(-1)?.name ?? Buffer.alloc(0);
  }

  /** Goes down to a directory in the last one, and takes over its descriptor. The name has no NUL at the end. */
  enter(fd: number, name: Buffer): void {
    this.#directories.push({ name, fd, identity: undefined });
    const last = this.#directories.length - OPEN - 1;
    const closed = last > 0 ? this.#directories[last] : undefined;
    if (closed?.fd === undefined) return;
    this.#status.readOpen(closed.fd);
    closed.identity = this.#status.identity;
    closeSync(closed.fd);
    closed.fd = undefined;
  }

  /**
   * Goes up from the last directory. Where the one above it cannot be found any more, the way ends at the next one
   * above that can.
   *
   * @returns the descriptor of the directory that was left, which the caller closes
   */
  leave(): number {
    const { fd } = this;
    this.#directories.pop();
    const above = this.#directories.at(-1);
    if (above !== undefined && above.fd === undefined) {
      above.fd = this.#openIf(above, () => openAbove(fd));
      if (above.fd === undefined) this.#findEnd();
    }
    return fd;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#directories.splice(0)) if (fd !== undefined) closeSync(fd);
  }

  /** Shortens the way, of which all but the root is closed, to what of it is still where it was. */
  #findEnd(): void {
    let found = 0;
    for (let lost = this.#directories.length; lost - found > 1;) {
      const middle = (found + lost) >> 1;
      const directory = this.#directories[middle];
      const fd = directory && this.#openIf(directory, () => this.#openByNames(middle));
      if (directory === undefined || fd === undefined) {
        lost = middle;
        continue;
      }
      const before = this.#directories[found];
      if (found > 0 && before?.fd !== undefined) {
        closeSync(before.fd);
        before.fd = undefined;
      }
      directory.fd = fd;
      found = middle;
    }
    this.#directories.length = found + 1;
  }

  /** Opens a directory of the way, if what `open` opens is that directory. */
  #openIf({ identity }: PassedDirectory, open: () => number): number | undefined {
    let fd: number;
    try {
      fd = open();
    } catch (error) {
      // Without the right to search a directory there is no way up from it, and below a mount there is none down.
      if (isGone(error) || ['EACCES', 'EXDEV'].includes(errnoOf(error))) return undefined;
      throw error;
    }
    try {
      this.#status.readOpen(fd);
      if (identity !== undefined && this.#status.is(identity)) return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    return undefined;
  }

  #openByNames(index: number): number {
    const names = this.#directories.slice(1, index + 1).map(({ name }) => name);
    return openLongPathBeneath(this.root, names);
  }
}

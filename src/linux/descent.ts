import { closeSync } from 'node:fs';
import { errnoOf, isGone } from './errno.ts';
import { openLongPathBeneath } from './file-calls.ts';
import { FileStatus } from './file-status.ts';

/** How many of the last directories are open. */
const LAST = 8;

/**
 * Of the directories above those, the last one whose index is a multiple of this is open, and so for every power of
 * this: the way back up from the depth n then takes time in the order of n log n.
 */
const STEP = 16;

/** A directory on the way. */
interface PassedDirectory {
  /** Its name in the one above. */
  readonly name: Buffer;
  /** `undefined` while it is not open. */
  fd: number | undefined;
  /** Known once it was closed. */
  identity: Uint32Array | undefined;
}

/**
 * The way from a directory down to one below it, at any depth, with few open directories: the first one, the last ones,
 * and some in between. On the way back the others are opened again by their names, and have to be the directories that
 * were closed, by device and inode.
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
    return this.#opened(this.#directories.length - 1);
  }

  /** The descriptor of the directory at its beginning. */
  get root(): number {
    return this.#opened(0);
  }

  /** The name of the directory at the end of the way, in the one above. */
  get name(): Buffer {
    return this.#at(this.#directories.length - 1).name;
  }

  /** Goes down to a directory in the last one, and takes over its descriptor. The name has no NUL at the end. */
  enter(fd: number, name: Buffer): void {
    this.#directories.push({ name, fd, identity: undefined });
    const passed = this.#directories.length - 1 - LAST;
    if (passed <= 0) return;
    this.#closeUnneeded(passed);
    for (let step = STEP; passed % step === 0; step *= STEP) this.#closeUnneeded(passed - step);
  }

  /**
   * Goes up from the last directory. Where the one above it was moved away meanwhile, the way ends at the next one
   * above that is still in its place.
   *
   * @returns the descriptor of the directory that was left, which the caller closes
   */
  leave(): number {
    const { fd } = this;
    this.#directories.pop();
    if (this.#directories.length > 0) this.#openLast();
    return fd;
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#directories.splice(0)) if (fd !== undefined) closeSync(fd);
  }

  #at(index: number): PassedDirectory {
    const directory = this.#directories[index];
    if (directory === undefined) throw new Error('the way is not as long');
    return directory;
  }

  #opened(index: number): number {
    const { fd } = this.#at(index);
    if (fd === undefined) throw new Error('the directory is not open');
    return fd;
  }

  #isNeeded(index: number): boolean {
    const passed = this.#directories.length - 1 - LAST;
    if (index === 0 || index > passed) return true;
    for (let step = STEP; step <= passed; step *= STEP) if (index === passed - (passed % step)) return true;
    return false;
  }

  #closeUnneeded(index: number): void {
    if (!this.#isNeeded(index)) this.#close(this.#at(index));
  }

  #close(directory: PassedDirectory): void {
    const { fd } = directory;
    if (fd === undefined) return;
    this.#status.readOpen(fd);
    directory.identity = this.#status.identity;
    directory.fd = undefined;
    closeSync(fd);
  }

  /** Opens the last directory of the way, and those that are to be open with it. Shortens the way if it is gone. */
  #openLast(): void {
    const last = this.#directories.length - 1;
    let from = last;
    while (this.#at(from).fd === undefined) from -= 1;
    for (let index = from + 1; index <= last; index += 1) {
      if (!this.#isNeeded(index)) continue;
      if (!this.#openBelow(from, index)) {
        this.#endBefore(from, index);
        return;
      }
      from = index;
    }
  }

  /** Ends the way at the last directory that is in its place, from an open one on, and before one that is not. */
  #endBefore(from: number, lost: number): void {
    let end = from;
    while (end + 1 < lost && this.#openBelow(end, end + 1)) {
      if (end > from) this.#close(this.#at(end));
      end += 1;
    }
    this.#directories.length = end + 1;
  }

  /** Opens a directory of the way from an open one above it. @returns whether it is still there */
  #openBelow(above: number, index: number): boolean {
    const directory = this.#at(index);
    const names = this.#directories.slice(above + 1, index + 1).map(({ name }) => name);
    let fd: number;
    try {
      fd = openLongPathBeneath(this.#opened(above), names);
    } catch (error) {
      // `EXDEV` says that something was mounted on it.
      if (isGone(error) || errnoOf(error) === 'EXDEV') return false;
      throw error;
    }
    directory.fd = fd;
    this.#status.readOpen(fd);
    if (directory.identity !== undefined && this.#status.is(directory.identity)) return true;
    directory.fd = undefined;
    closeSync(fd);
    return false;
  }
}

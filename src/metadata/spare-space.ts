import { randomBytes } from 'node:crypto';
import { closeSync, constants, rmSync, writeFileSync } from 'node:fs';
import { errnoOf } from '../linux/errno.ts';
import { openPlain, statPlain } from '../linux/plain-file.ts';

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
    // A link or a fifo in its place holds no space, and stays for a check to find.
    if (statPlain(path) !== undefined) rmSync(path, { force: true });
  }

  /** Sets the space aside, unless it is already or there is too little. */
  hold(): void {
    if (this.#held) return;
    try {
      if (!isWhole(this.#path)) {
        SpareSpace.free(this.#path);
        create(this.#path);
      }
      this.#held = true;
    } catch (error) {
      // Another process has just made it.
      if (errnoOf(error) !== 'EEXIST') this.#giveUp();
    }
  }

  /** What was written before is durable, whatever becomes of the space. */
  #giveUp(): void {
    try {
      this.release();
    } catch {
      // The disk has failed, which the next write says.
    }
  }

  /** Frees the space. */
  release(): void {
    SpareSpace.free(this.#path);
    this.#held = false;
  }
}

/** Whether the file is there, takes all of its space, and has no other name by which that could be kept. */
function isWhole(path: string): boolean {
  const found = statPlain(path);
  return found !== undefined && found.nlink === 1 && found.blocks * 512 >= SPARE_BYTES;
}

/** Makes the file. Nothing is ever written to one that is there: it may be a second name of somebody's file. */
function create(path: string): void {
  const fd = openPlain(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    // Not zeros, which some filesystems would not give any space.
    writeFileSync(fd, randomBytes(SPARE_BYTES));
  } finally {
    closeSync(fd);
  }
}

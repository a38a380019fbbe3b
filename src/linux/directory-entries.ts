import { constants, closeSync, openSync } from 'node:fs';
import { readEntries } from './file-calls.ts';
import { littleEndian } from './foreign.ts';

const DT_UNKNOWN = 0;
const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;

/** What a directory has under a name. */
export class DirectoryEntry {
  /** The bytes of the name, a character each: so it sorts like the bytes, and costs less than they would. */
  readonly text: string;
  readonly #type: number;

  constructor(text: string, type: number) {
    this.text = text;
    this.#type = type;
  }

  get name(): Buffer {
    return Buffer.from(this.text, 'latin1');
  }

  /** Whether the filesystem tells what it is. */
  get known(): boolean {
    return this.#type !== DT_UNKNOWN;
  }

  isDirectory(): boolean {
    return this.#type === DT_DIR;
  }

  isFile(): boolean {
    return this.#type === DT_REG;
  }

  isSymbolicLink(): boolean {
    return this.#type === DT_LNK;
  }
}

// About a thousand entries. What is read is taken out of it before anyone else can read.
const buffer = Buffer.alloc(32_768);
const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);

/**
 * Reads a directory, open for the first time, in parts: one of a million files must not hold the event loop while it is
 * read.
 */
export function* readBatches(fd: number): Generator<DirectoryEntry[], void, undefined> {
  for (let length = readEntries(fd, buffer); length > 0; length = readEntries(fd, buffer)) {
    yield parse(length);
  }
}

/** Does the same for a directory that is not open, by its path. */
export function* readBatchesOf(path: string): Generator<DirectoryEntry[], void, undefined> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    yield* readBatches(fd);
  } finally {
    closeSync(fd);
  }
}

/** The records of getdents64(2): two numbers of eight bytes, the length of the record, the type, and the name. */
function parse(length: number): DirectoryEntry[] {
  const entries: DirectoryEntry[] = [];
  for (let at = 0; at < length;) {
    const next = at + view.getUint16(at + 16, littleEndian);
    // The name ends within the last eight bytes, with a NUL; what is behind that is left from earlier.
    const end = buffer.indexOf(0, Math.max(at + 19, next - 8));
    const text = buffer.toString('latin1', at + 19, end);
    if (text !== '.' && text !== '..') entries.push(new DirectoryEntry(text, view.getUint8(at + 18)));
    at = next;
  }
  return entries;
}

/** Goes through names in the order of their bytes, given in parts that are each in that order. */
export function mergeSorted(parts: readonly string[][]): Iterator<string, void> {
  const [first = [], ...others] = parts;
  if (others.length === 0) return first.values() as Iterator<string, void>;
  const middle = parts.length >> 1;
  return merge(mergeSorted(parts.slice(0, middle)), mergeSorted(parts.slice(middle)));
}

function* merge(
  left: Iterator<string, void>,
  right: Iterator<string, void>,
): Generator<string, void, undefined> {
  let a = left.next();
  let b = right.next();
  while (a.done !== true || b.done !== true) {
    if (b.done === true || (a.done !== true && a.value < b.value)) {
      if (a.done === true) return;
      yield a.value;
      a = left.next();
    } else {
      yield b.value;
      b = right.next();
    }
  }
}

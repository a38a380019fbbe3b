import { constants, closeSync, openSync } from 'node:fs';
import { readEntries } from './file-calls.ts';
import { littleEndian } from './foreign.ts';

const DT_UNKNOWN = 0;
const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;

/** An entry of a directory, with its type if the filesystem gives that. */
export class DirectoryEntry {
  /** The name, one character for each byte: it sorts like the bytes, and costs less than a buffer. */
  readonly text: string;
  readonly #type: number;

  constructor(text: string, type: number) {
    this.text = text;
    this.#type = type;
  }

  get name(): Buffer {
    return Buffer.from(this.text, 'latin1');
  }

  /** Whether the filesystem gives its type. */
  get hasType(): boolean {
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

// Space for about a thousand entries. All who read share it, since it is parsed at once.
const buffer = Buffer.alloc(32_768);
const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);

/**
 * Reads a directory that has just been opened in batches, between which callers can let the event loop run: a directory
 * may have a million entries.
 */
export function* readBatches(fd: number): Generator<DirectoryEntry[], void, undefined> {
  for (let length = readEntries(fd, buffer); length > 0; length = readEntries(fd, buffer)) {
    yield parse(length);
  }
}

/** Opens a directory, reads it in batches, and closes it. */
export function* readBatchesOf(path: string): Generator<DirectoryEntry[], void, undefined> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    yield* readBatches(fd);
  } finally {
    closeSync(fd);
  }
}

/** Parses `struct linux_dirent64`: two numbers of eight bytes, the length of the record, the type, and the name. */
function parse(length: number): DirectoryEntry[] {
  const entries: DirectoryEntry[] = [];
  for (let at = 0; at < length;) {
    const next = at + view.getUint16(at + 16, littleEndian);
    // The NUL at the end of the name is within the last eight bytes; what is behind it is not cleared.
    const end = buffer.indexOf(0, Math.max(at + 19, next - 8));
    const text = buffer.toString('latin1', at + 19, end);
    if (text !== '.' && text !== '..') entries.push(new DirectoryEntry(text, view.getUint8(at + 18)));
    at = next;
  }
  return entries;
}

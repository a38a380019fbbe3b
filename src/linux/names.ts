import { type Dirent, opendirSync } from 'node:fs';

/** How many entries of a directory are read, and sorted, at a time. */
const BATCH = 1024;

/** Reads a directory in parts: one of a million files must not hold the event loop while it is read. */
export function* readBatches(path: string): Generator<Dirent<Buffer>[], void, undefined> {
  // The declarations know only names that are strings.
  const directory = opendirSync(path, { encoding: 'buffer' as BufferEncoding, bufferSize: BATCH });
  try {
    let batch: Dirent<Buffer>[] = [];
    for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
      batch.push(entry as unknown as Dirent<Buffer>);
      if (batch.length < BATCH) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0) yield batch;
  } finally {
    directory.closeSync();
  }
}

/** Goes through names in the order of their bytes, given in parts that are each in that order. */
export function merged(parts: readonly Buffer[][]): Iterator<Buffer, void> {
  const [first = [], ...others] = parts;
  if (others.length === 0) return first.values() as Iterator<Buffer, void>;
  const middle = parts.length >> 1;
  return merge(merged(parts.slice(0, middle)), merged(parts.slice(middle)));
}

function* merge(
  left: Iterator<Buffer, void>,
  right: Iterator<Buffer, void>,
): Generator<Buffer, void, undefined> {
  let a = left.next();
  let b = right.next();
  while (a.done !== true || b.done !== true) {
    if (b.done === true || (a.done !== true && Buffer.compare(a.value, b.value) < 0)) {
      if (a.done === true) return;
      yield a.value;
      a = left.next();
    } else {
      yield b.value;
      b = right.next();
    }
  }
}

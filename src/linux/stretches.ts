import { nextData, nextHole } from './file-calls.ts';

/** A stretch of a file that holds data, in bytes. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/**
 * The stretches of a file that hold data, up to a size. What lies between them is a hole, which reads as
 * zeros. A file that becomes shorter meanwhile has fewer.
 */
export function* stretchesOf(fd: number, size: number): Generator<Stretch, void, undefined> {
  for (let end = 0; ;) {
    const from = nextData(fd, end);
    if (from === undefined || from >= size) return;
    const hole = nextHole(fd, from);
    if (hole === undefined) return;
    end = Math.min(hole, size);
    yield { from, to: end };
  }
}

/** The stretches of two files of the same size in which at least one of them holds data. */
export function* stretchesOfEither(
  one: number,
  other: number,
  size: number,
): Generator<Stretch, void, undefined> {
  for (let end = 0; ;) {
    const [first = size, second = size] = [nextData(one, end), nextData(other, end)];
    const from = Math.min(first, second);
    if (from >= size) return;
    const holes = [
      first === from ? nextHole(one, from) : from,
      second === from ? nextHole(other, from) : from,
    ];
    end = Math.min(size, Math.max(...holes.map((hole) => hole ?? from)));
    if (end === from) return;
    yield { from, to: end };
  }
}

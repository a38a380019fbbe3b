import type { Checked } from '../arguments.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { diffTrees } from '../layers/compare.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { isGone, isSystemError } from '../linux/errno.ts';
import { openMountOf } from '../mount/mount.ts';
import { quote } from '../quote.ts';
import type { Change, DiffOptions } from '../snapshot.ts';
import { openLayersOf } from './held-layers.ts';
import type { ReadView } from './mount-table.ts';
import type { Operations } from './operations.ts';
import type { Resources } from './resources.ts';

/** Compares what two snapshots hold. Both are mounted meanwhile, read-only and where nobody else sees it. */
export async function* diffSnapshots(
  { access, held, reader, mountTable: { ownAttributes } }: Resources,
  operations: Operations,
  keyOrName: string,
  options: Checked<DiffOptions>,
): AsyncGenerator<Change, void, undefined> {
  /** Both sides as they are at one moment, the older one first; `undefined` for nothing. */
  const read = (): Promise<readonly [ReadView | undefined, ReadView]> =>
    access.read('reading what to compare', () => {
      const { against = reader.stat(keyOrName).parent } = options;
      const old = against === null ? undefined : operations.readView(against);
      return [old, operations.readView(keyOrName)];
    });
  const [old, current] = await read();
  try {
    const open = openLayersOf(held);
    await using before = old && (await openMountOf(open, old.mounts));
    await using after = await openMountOf(open, current.mounts);
    using opened = new Descriptors();
    const layers = differing(old?.layers ?? [], current.layers)?.map((id) => opened.add(held.open(id, 'fs')));
    yield* diffTrees({ before: before?.fd, after: after.fd, layers, ownAttributes }, options);
  } catch (error) {
    // If a snapshot was deleted meanwhile, this fails with NOT_FOUND instead of DATA_LOSS.
    if (isGone(error) || (error instanceof SnapshotError && error.code === 'DATA_LOSS')) await read();
    // A signal's reason is the caller's.
    throw isSystemError(error) ? toSnapshotError(error, `comparing ${quote(keyOrName)}`) : error;
  }
}

/** The layers that only one of two stacks has; `undefined` if they have none in common at the bottom. */
function differing(one: readonly number[], other: readonly number[]): number[] | undefined {
  let common = 0;
  while (common < one.length && common < other.length && one.at(-1 - common) === other.at(-1 - common)) {
    common += 1;
  }
  return common === 0 ? undefined : [one, other].flatMap((ids) => ids.slice(0, ids.length - common));
}

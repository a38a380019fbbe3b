import { SnapshotError, toSnapshotError } from '../errors.ts';
import { isGone, isSystemError } from '../linux/errno.ts';
import { openMount } from '../mount/mount.ts';
import { checkName, checkOptions, checkWatched, kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type { Layout } from '../layers/layout.ts';
import type { Look } from './mount-table.ts';
import { diffTrees } from '../layers/compare.ts';
import type { Change, DiffOptions } from '../snapshot.ts';

/** What comparing needs of the driver. */
interface Parts {
  readonly layout: Layout;
  /** Both sides as they are at one moment, the older one first: none if it is to be compared with nothing. */
  readonly look: () => Promise<readonly [Look | undefined, Look]>;
}

/** Checks the options of a comparison. */
export function checkDiffOptions(given: DiffOptions | undefined): DiffOptions {
  const options = checkOptions(given, ['against', 'contents', 'signal']);
  const { against, contents } = options;
  if (against !== undefined && against !== null) checkName(against, 'key or name');
  if (contents !== undefined && typeof contents !== 'boolean') {
    throw new TypeError(`contents must be a boolean, not ${kindOf(contents)}`);
  }
  checkWatched(options);
  return options;
}

/** Compares what two snapshots hold. Both are mounted meanwhile, read-only and where nobody sees it. */
export async function* diffSnapshots(
  { layout, look }: Parts,
  keyOrName: string,
  options: DiffOptions,
): AsyncGenerator<Change, void, undefined> {
  const [old, current] = await look();
  try {
    await using before = old && (await openMount(old.mounts));
    await using after = await openMount(current.mounts);
    const layers = differing(old?.layers ?? [], current.layers)?.map((id) => layout.fs(id));
    yield* diffTrees({ before: before?.fd, after: after.fd, layers }, options);
  } catch (error) {
    // What is gone because its snapshot is was no loss.
    if (isGone(error) || (error instanceof SnapshotError && error.code === 'DATA_LOSS')) await look();
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

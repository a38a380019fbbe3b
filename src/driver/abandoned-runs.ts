import { DirectoryLock } from '../layers/directory-lock.ts';
import { RUN_LABEL, type RunPurpose, isAbandoned } from '../layers/run-workspace.ts';
import { isGone } from '../linux/errno.ts';
import { quote } from '../quote.ts';
import type { SnapshotRecord } from '../snapshot.ts';
import type { Resources } from './resources.ts';

const THROWN_AWAY: RunPurpose = 'throw-away';

/**
 * Removes the workspaces that were to be thrown away by processes that were killed. One whose command still runs, or
 * of which that cannot be found out, stays. Their directories are left to the reaper.
 *
 * @throws the reason of `signal`
 */
export async function removeAbandonedRuns(resources: Resources, signal?: AbortSignal): Promise<void> {
  const { access, reader } = resources;
  const doing = 'looking for workspaces of killed runs';
  const filter = `kind==active,labels."${RUN_LABEL}"=="${THROWN_AWAY}"`;
  const pages = await access.readOn(doing, () => reader.pages([filter], 'open'));
  for (;;) {
    const page = await access.readOn(doing, () => pages.next());
    if (page.done === true) return;
    for (const record of page.value) {
      signal?.throwIfAborted();
      await removeIfAbandoned(resources, record, signal);
    }
  }
}

async function removeIfAbandoned(
  { access, held, layers, reader, writer }: Resources,
  { id, name: key }: SnapshotRecord,
  signal: AbortSignal | undefined,
): Promise<void> {
  if ((await isAbandoned(held, id)) !== true) return;
  let lock: DirectoryLock | undefined;
  try {
    // So that nobody mounts it between the look and the removal.
    lock = DirectoryLock.take(held, id);
  } catch (error) {
    if (isGone(error)) return;
    throw error;
  }
  if (lock === undefined) return;
  try {
    if (!(await isAbandoned(held, id)) || (await layers.inUse({ id, key, base: false }))) return;
    const remove = (): void => {
      // Whoever has taken the label away wants to keep it.
      if (reader.lookUp(key)?.id === id && reader.stat(key).labels[RUN_LABEL] === THROWN_AWAY)
        writer.remove(key);
    };
    await access.writeOn(`removing ${quote(key)}`, remove, { frees: true, signal });
  } finally {
    lock.release();
  }
}

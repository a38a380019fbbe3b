import { existsSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import { DirectoryLock } from '../../layers/directory-lock.ts';
import { currentBoot } from '../../linux/boot.ts';
import { isSystemError } from '../../linux/errno.ts';
import { type Mounts, findUse, lookAtAllMounts } from '../../linux/mountinfo.ts';
import type { SeenRemoval } from '../../metadata/repair/inspector.ts';
import type { CheckContext } from '../context.ts';
import { type Problem, confirm } from './directories.ts';

/** What is still to be deleted, what crashes left behind, and what has been open for long. */
export async function checkLeftovers(context: CheckContext): Promise<void> {
  const { inspector, removals, snapshots } = context;
  context.expect(removals.size + snapshots.size);
  const mounts = await lookAtAllMounts();
  const suspects = new Map<number, Problem[]>();
  for (const [id, entries] of removals) {
    context.looked();
    if (!context.wants(id)) continue;
    const problems = journalled(context, mounts, id, entries);
    if (problems.length > 0) suspects.set(id, problems);
  }
  const still = await confirm(context, suspects, (id) =>
    journalled(context, mounts, id, inspector.removalsOf(id)),
  );
  for (const { code, details } of still) context.add(code, details);
  const now = Date.now() * 1000;
  const { olderThan } = context.settings;
  const boot = currentBoot();
  for (const { id, kind, createdUs, volatileBoot } of snapshots.values()) {
    context.looked();
    if (kind === 'committed' || !context.wants(id)) continue;
    if (olderThan !== undefined && now - createdUs > olderThan * 1000) {
      const since = new Date(createdUs / 1000);
      // A damaged row can hold a time that is none.
      const time = Number.isNaN(since.getTime()) ? `${createdUs} µs` : since.toISOString();
      context.add('open-long', { message: `${context.quote(id)} has been open since ${time}`, id });
    }
    if (kind === 'active') checkVolatile(context, id, volatileBoot, boot);
  }
}

function journalled(
  context: CheckContext,
  mounts: readonly Mounts[],
  id: number,
  entries: readonly SeenRemoval[],
): Problem[] {
  const { layout } = context;
  return entries.flatMap(({ part, state }): Problem[] => {
    const path = part === 'work' ? layout.work(id) : layout.directory(id);
    if (state === 'reserved') {
      if (isLocked(context, id)) return [];
      const message = `id ${id} is reserved for a copy that nobody is making any more`;
      return [{ code: 'reservation-abandoned', details: { message, id, path } }];
    }
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return [];
    const use = findUse(mounts, path);
    const message = `${path} is still to be deleted${use === undefined ? '' : `: ${use}`}`;
    return [{ code: 'removal-waiting', details: { message, id, path } }];
  });
}

function isLocked(context: CheckContext, id: number): boolean {
  try {
    const lock = DirectoryLock.take(context.layout, id);
    lock?.release();
    return lock === undefined;
  } catch (error) {
    if (isSystemError(error)) return false;
    throw error;
  }
}

/** overlayfs leaves a mark with a volatile mount: whoever finds it after a crash cannot trust what is there. */
function checkVolatile(context: CheckContext, id: number, volatileBoot: string | null, boot: string): void {
  const mark = join(context.layout.work(id), 'work', 'incompat', 'volatile');
  if (volatileBoot === boot || !existsSync(mark)) return;
  const me = context.quote(id);
  context.add('volatile-lost', {
    message:
      volatileBoot === null
        ? `${me} was mounted as volatile behind the store's back, and overlayfs refuses to mount it again`
        : `${me} is volatile, and the machine was started anew since it was mounted`,
    id,
    path: mark,
  });
}

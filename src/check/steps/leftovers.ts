import { existsSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import { DirectoryLock } from '../../driver/directory-lock.ts';
import { currentBoot } from '../../linux/boot.ts';
import { isSystemError } from '../../linux/errno.ts';
import { type Mounts, findUse, lookAtAllMounts } from '../../linux/mountinfo.ts';
import type { SeenRemoval } from '../../metadata/inspector.ts';
import type { Subject } from '../subject.ts';
import { type Problem, confirm } from './directories.ts';

/** What is still to be deleted, what crashes left behind, and what has been open for long. */
export async function checkLeftovers(subject: Subject): Promise<void> {
  const { inspector, removals, snapshots } = subject;
  subject.expect(removals.size + snapshots.size);
  const mounts = await lookAtAllMounts();
  const suspects = new Map<number, Problem[]>();
  for (const [id, entries] of removals) {
    subject.looked();
    if (!subject.wants(id)) continue;
    const problems = journalled(subject, mounts, id, entries);
    if (problems.length > 0) suspects.set(id, problems);
  }
  const still = await confirm(subject, suspects, (id) =>
    journalled(subject, mounts, id, inspector.removalsOf(id)),
  );
  for (const { code, particulars } of still) subject.add(code, particulars);
  const now = Date.now() * 1000;
  const { olderThan } = subject.settings;
  const boot = currentBoot();
  for (const { id, kind, createdUs, volatileBoot } of snapshots.values()) {
    subject.looked();
    if (kind === 'committed' || !subject.wants(id)) continue;
    if (olderThan !== undefined && now - createdUs > olderThan * 1000) {
      const since = new Date(createdUs / 1000);
      // A damaged row can hold a time that is none.
      const time = Number.isNaN(since.getTime()) ? `${createdUs} µs` : since.toISOString();
      subject.add('open-long', { message: `${subject.quote(id)} has been open since ${time}`, id });
    }
    if (kind === 'active') checkVolatile(subject, id, volatileBoot, boot);
  }
}

function journalled(
  subject: Subject,
  mounts: readonly Mounts[],
  id: number,
  entries: readonly SeenRemoval[],
): Problem[] {
  const { layout } = subject;
  return entries.flatMap(({ part, state }): Problem[] => {
    const path = part === 'work' ? layout.work(id) : layout.directory(id);
    if (state === 'reserved') {
      if (isLocked(subject, id)) return [];
      const message = `id ${id} is reserved for a copy that nobody is making any more`;
      return [{ code: 'reservation-abandoned', particulars: { message, id, path } }];
    }
    if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return [];
    const use = findUse(mounts, path);
    const message = `${path} is still to be deleted${use === undefined ? '' : `: ${use}`}`;
    return [{ code: 'removal-waiting', particulars: { message, id, path } }];
  });
}

function isLocked(subject: Subject, id: number): boolean {
  try {
    const lock = DirectoryLock.take(subject.layout, id);
    lock?.release();
    return lock === undefined;
  } catch (error) {
    if (isSystemError(error)) return false;
    throw error;
  }
}

/** overlayfs leaves a mark with a volatile mount: whoever finds it after a crash cannot trust what is there. */
function checkVolatile(subject: Subject, id: number, volatileBoot: string | null, boot: string): void {
  const mark = join(subject.layout.work(id), 'work', 'incompat', 'volatile');
  if (volatileBoot === boot || !existsSync(mark)) return;
  const me = subject.quote(id);
  subject.add('volatile-lost', {
    message:
      volatileBoot === null
        ? `${me} was mounted as volatile behind the store's back, and overlayfs refuses to mount it again`
        : `${me} is volatile, and the machine was started anew since it was mounted`,
    id,
    path: mark,
  });
}

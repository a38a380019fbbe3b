import { join } from 'node:path';
import { DirectoryLock } from '../../layers/directory-lock.ts';
import { type HeldRoot, unlessHidden } from '../../layers/held-root.ts';
import { withParent } from '../../layers/lost-and-found.ts';
import { RUN_LABEL, RUN_PURPOSES, isAbandoned } from '../../layers/run-workspace.ts';
import { type MountSurvey, StoreMounts } from '../../layers/store-mounts.ts';
import { hasMark } from '../../layers/volatile.ts';
import { currentBoot } from '../../linux/boot.ts';
import { FileStatus } from '../../linux/file-status.ts';
import type { SeenRemoval, SeenSnapshot } from '../../metadata/repair/inspector.ts';
import { confirm } from '../confirm.ts';
import { type CheckContext, isWanted } from '../context.ts';
import { type Problem, problem } from '../problem.ts';

/** Checks for what is still to be deleted, what crashes left behind, and what has been open for long. */
export async function checkLeftovers(context: CheckContext): Promise<void> {
  const { held, inspector, rows, progress, problems } = context;
  const { removals, snapshots } = rows;
  progress.expect(removals.size + snapshots.size);
  const mounts = await new StoreMounts(held).survey();
  const suspects = new Map<number, Problem[]>();
  for (const [id, entries] of removals) {
    progress.advance();
    if (isWanted(context, id)) suspects.set(id, checkRemovals(context, mounts, id, entries));
  }
  const confirmed = await confirm(context, suspects, (id) =>
    checkRemovals(context, mounts, id, inspector.removalsOf(id)),
  );
  problems.addAll(confirmed);
  const boot = currentBoot();
  const runs = inspector.labelled(RUN_LABEL);
  for (const row of snapshots.values()) {
    progress.advance();
    if (row.kind === 'committed' || !isWanted(context, row.id)) continue;
    checkAge(context, row);
    if (row.kind !== 'active') continue;
    // Whoever made it for a command and was killed does not want it any more.
    const left = await checkRun(context, mounts, row, runs.get(row.id));
    if (!left) checkVolatile(context, row, boot);
  }
}

/** Checks whether a workspace was left behind by a command. @returns whether it was, and is to be thrown away */
async function checkRun(
  { held, layout, inspector, rows, problems }: CheckContext,
  mounts: MountSurvey,
  { id }: SeenSnapshot,
  label: string | undefined,
): Promise<boolean> {
  const purpose = RUN_PURPOSES.find((known) => known === label);
  if (purpose === undefined || mounts.findUse(`${id}`) !== undefined) return false;
  const abandoned = await isAbandoned(held, id);
  // Its process may have ended it while this was found out.
  if (abandoned === false || inspector.snapshot(id)?.kind !== 'active') return false;
  const certain = abandoned === true;
  problems.add('run-abandoned', {
    snapshot: rows.quote(id),
    purpose,
    certain,
    id,
    path: layout.directory(id),
  });
  return purpose === 'throw-away';
}

function checkRemovals(
  { held, layout }: CheckContext,
  mounts: MountSurvey,
  id: number,
  entries: readonly SeenRemoval[],
): Problem[] {
  return entries.flatMap(({ part, state }): Problem[] => {
    const path = part === 'work' ? layout.work(id) : layout.directory(id);
    if (state === 'reserved') {
      return isLocked(held, id) ? [] : [problem('reservation-abandoned', { id, path })];
    }
    const isThere = unlessHidden(() =>
      withParent(held, path, (above, name) => new FileStatus().read(above, name)),
    );
    if (isThere !== true) return [];
    return [
      problem('removal-waiting', {
        id,
        path,
        use: mounts.findUse(part === 'work' ? `${id}/work` : `${id}`)?.what,
      }),
    ];
  });
}

function isLocked(held: HeldRoot, id: number): boolean {
  const isFree = unlessHidden(() => {
    const lock = DirectoryLock.take(held, id);
    lock?.release();
    return lock !== undefined;
  });
  return isFree === false;
}

function checkAge({ settings, rows, problems }: CheckContext, { id, createdUs }: SeenSnapshot): void {
  const { olderThan } = settings;
  if (olderThan === undefined || Date.now() * 1000 - createdUs <= olderThan * 1000) return;
  const created = new Date(createdUs / 1000);
  // A damaged row can hold a number that is not a time.
  const since = Number.isNaN(created.getTime()) ? `${createdUs} µs` : created.toISOString();
  problems.add('open-long', { snapshot: rows.quote(id), since, id });
}

/** overlayfs marks the work directory of a volatile mount. After a crash, the mark means that writes may be lost. */
function checkVolatile(
  { held, layout, rows, problems }: CheckContext,
  { id, volatileBoot }: SeenSnapshot,
  boot: string,
): void {
  if (volatileBoot === boot || unlessHidden(() => hasMark(held, id)) !== true) return;
  problems.add('volatile-lost', {
    snapshot: rows.quote(id),
    unrecorded: volatileBoot === null,
    id,
    path: join(layout.work(id), 'work', 'incompat', 'volatile'),
  });
}

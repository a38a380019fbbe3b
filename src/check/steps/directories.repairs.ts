import { chmodSync, existsSync, lstatSync, mkdirSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import { isSkeleton, makeLayer, makeWork, removeSkeleton } from '../../layers/directories.ts';
import { setAside } from '../../layers/lost-and-found.ts';
import { errnoOf, isGone } from '../../linux/errno.ts';
import { syncPath } from '../../linux/sync-path.ts';
import type { Problem } from '../problem.ts';
import {
  DONE,
  GONE,
  type RepairContext,
  type RepairOutcome,
  type Repairs,
  locked,
} from '../repair-context.ts';
import type { DIRECTORY_FINDINGS } from './directories.findings.ts';

/** What repair does about the findings of the step `directories`. */
export const directoryRepairs: Repairs<typeof DIRECTORY_FINDINGS> = {
  'root-mode': ({ layout }) => setMode(layout.root, 0o700),
  'database-mode': ({ layout }) => setMode(layout.database, 0o600),
  'snapshots-missing': locked(({ layout }) => createDirectory(layout.snapshots)),
  'not-a-directory': locked(moveUnlessDirectory),
  'directory-unknown': locked(moveUnknown),
  'entry-extra': locked(moveExtra),
  skeleton: locked(removeIfEmpty),
  'directory-missing': locked(createMissing),
  'layer-missing': locked(createMissing),
  'work-missing': locked(createMissing),
};

function setMode(path: string, mode: number): RepairOutcome {
  if ((lstatSync(path).mode & 0o7777) === mode) return GONE;
  chmodSync(path, mode);
  return DONE;
}

function createDirectory(path: string): RepairOutcome {
  if (existsSync(path)) return GONE;
  mkdirSync(path, { mode: 0o700 });
  syncPath(dirname(path));
  return DONE;
}

function move({ layout, mounts }: RepairContext, { id, path, message }: Problem): RepairOutcome {
  if (path === undefined || lstatSync(path, { throwIfNoEntry: false }) === undefined) return GONE;
  const use = mounts.findUse(relative(layout.snapshots, path.toString()));
  if (use !== undefined) return { outcome: 'refused', detail: use.what };
  try {
    const place = setAside(layout, path, id, message);
    syncPath(dirname(path.toString()));
    return { outcome: 'done', detail: place };
  } catch (error) {
    if (isGone(error)) return GONE;
    if (!['EBUSY', 'EXDEV'].includes(errnoOf(error))) throw error;
    return { outcome: 'refused', detail: `something is mounted on ${path.toString()}` };
  }
}

function moveUnlessDirectory(context: RepairContext, problem: Problem): RepairOutcome {
  const { path } = problem;
  const now = path === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false });
  return now === undefined || now.isDirectory() ? GONE : move(context, problem);
}

function moveUnknown(context: RepairContext, problem: Problem): RepairOutcome {
  return problem.id !== undefined && isKnown(context, problem.id) ? GONE : move(context, problem);
}

function moveExtra(context: RepairContext, problem: Problem): RepairOutcome {
  const { writer, layout } = context;
  const { id, path } = problem;
  const row = id === undefined ? undefined : writer.snapshot(id);
  if (id === undefined || row === undefined) return GONE;
  const isWork = path?.toString() === layout.work(id);
  // An active snapshot needs its work directory, and one in the removal journal is deleted anyway.
  if (isWork && (row.kind === 'active' || writer.journalled(id).includes('work'))) return GONE;
  return move(context, problem);
}

/** Removes what is empty, and never what it holds. */
function removeIfEmpty(context: RepairContext, { id }: Problem): RepairOutcome {
  const { layout } = context;
  if (id === undefined || isKnown(context, id) || !existsSync(layout.directory(id))) return GONE;
  if (isSkeleton(layout.directory(id)) && removeSkeleton(layout, id)) return DONE;
  return { outcome: 'refused', detail: 'it is not empty any more, or in use' };
}

function isKnown({ writer }: RepairContext, id: number): boolean {
  return writer.snapshot(id) !== undefined || writer.journalled(id).includes('all');
}

/** Creates the directories of an open snapshot that are missing, empty. */
function createMissing({ layout, writer }: RepairContext, { id }: Problem): RepairOutcome {
  const row = id === undefined ? undefined : writer.snapshot(id);
  if (id === undefined || row === undefined || row.kind === 'committed') return GONE;
  const { kind, parentId } = row;
  let created = false;
  const create = (path: string, body: () => void): void => {
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
    body();
    created = true;
  };
  create(layout.directory(id), () => mkdirSync(layout.directory(id), { mode: 0o700 }));
  create(layout.fs(id), () => makeLayer(layout, { id, parentId, labels: writer.labels(id) }));
  if (kind === 'active') create(layout.work(id), () => makeWork(layout, id));
  if (!created) return GONE;
  syncPath(layout.fs(id));
  syncPath(layout.directory(id));
  syncPath(layout.snapshots);
  return DONE;
}

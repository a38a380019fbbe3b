import { chmodSync, fsyncSync, statSync } from 'node:fs';
import { relative } from 'node:path';
import { isSkeleton, makeLayer, makeWork, removeSkeleton } from '../../layers/directories.ts';
import { type HeldRoot, unlessHidden } from '../../layers/held-root.ts';
import { setAside, withParent } from '../../layers/lost-and-found.ts';
import { errnoOf, isGone, unlessGone } from '../../linux/errno.ts';
import { createDirectory } from '../../linux/file-calls.ts';
import { FileStatus, isDirectory } from '../../linux/file-status.ts';
import { inUserNamespace } from '../../linux/filesystem.ts';
import { isProtected } from '../../linux/inode-flags.ts';
import { cString } from '../../linux/foreign.ts';
import { fdPath } from '../../linux/tree-walk.ts';
import { removeDefaultAcl } from '../../linux/xattrs.ts';
import { quoteWhole } from '../../quote.ts';
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
  'root-mode': ({ held }) => setMode(fdPath(held.fd), 0o700),
  'database-mode': ({ layout }) => setMode(layout.database, 0o600),
  'snapshots-missing': locked(createSnapshots),
  'not-a-directory': locked(moveUnlessDirectory),
  'directory-unknown': locked(moveUnknown),
  'entry-extra': locked(moveExtra),
  skeleton: locked(removeIfEmpty),
  'directory-missing': locked(createMissing),
  'layer-missing': locked(createMissing),
  'work-missing': locked(createMissing),
};

function setMode(path: string, mode: number): RepairOutcome {
  if ((statSync(path).mode & 0o7777) === mode) return GONE;
  chmodSync(path, mode);
  return DONE;
}

function createSnapshots({ held }: RepairContext): RepairOutcome {
  if (new FileStatus().read(held.fd, cString('snapshots'))) return GONE;
  held.make('snapshots');
  return DONE;
}

function move({ held, layout, mounts }: RepairContext, { id, path, message }: Problem): RepairOutcome {
  if (path === undefined) return GONE;
  const use = mounts.findUse(relative(layout.snapshots, path.toString()));
  if (use !== undefined) return { outcome: 'refused', detail: use.what };
  try {
    return { outcome: 'done', detail: setAside(held, path, id, message) };
  } catch (error) {
    if (isGone(error)) return GONE;
    const reason = reasonOf(held, path, errnoOf(error));
    if (reason === undefined) throw error;
    return { outcome: 'refused', detail: reason };
  }
}

/** Why something cannot be moved; `undefined` if that is not known. */
function reasonOf(held: HeldRoot, path: string | Buffer, errno: string): string | undefined {
  const shown = quoteWhole(path.toString());
  const status = new FileStatus();
  const found = unlessHidden(() => withParent(held, path, (parent, name) => status.read(parent, name)));
  if (errno === 'EBUSY' || found === undefined || status.isMountRoot)
    return `something is mounted on ${shown}`;
  if (errno === 'EXDEV') {
    return `${shown} is in another project with a quota of its own (lsattr -pd, chattr -p), so it cannot be moved to lost+found`;
  }
  if (errno === 'EPERM') {
    const what = isProtected(status) ? shown : `the directory of ${shown}`;
    return `${what} is immutable or append-only (lsattr -d, chattr -i -a)`;
  }
  return undefined;
}

function moveUnlessDirectory(context: RepairContext, problem: Problem): RepairOutcome {
  const { path } = problem;
  if (path === undefined) return GONE;
  const status = new FileStatus();
  const found = unlessGone(() => withParent(context.held, path, (parent, name) => status.read(parent, name)));
  return found !== true || isDirectory(status.mode) ? GONE : move(context, problem);
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
  const { held } = context;
  if (id === undefined || isKnown(context, id) || !isThere(held.snapshots, String(id))) return GONE;
  if (isSkeleton(held, id) && removeSkeleton(held, id)) return DONE;
  return { outcome: 'refused', detail: 'it is not empty any more, or in use' };
}

function isKnown({ writer }: RepairContext, id: number): boolean {
  return writer.snapshot(id) !== undefined || writer.journalled(id).includes('all');
}

/** Creates the directories of an open snapshot that are missing, empty. */
function createMissing({ held, writer }: RepairContext, { id }: Problem): RepairOutcome {
  const row = id === undefined ? undefined : writer.snapshot(id);
  if (id === undefined || row === undefined || row.kind === 'committed') return GONE;
  const { kind, parentId } = row;
  const ownAttributes = inUserNamespace() ? 'user.overlay.' : 'trusted.overlay.';
  let created = false;
  const create = (directory: number, name: string, body: () => void): void => {
    if (isThere(directory, name)) return;
    body();
    created = true;
  };
  const { snapshots } = held;
  create(snapshots, String(id), () => createDirectory(snapshots, cString(String(id)), 0o700));
  held.with(id, undefined, (directory) => {
    removeDefaultAcl(directory);
    create(directory, 'fs', () =>
      makeLayer(held, directory, { parentId, labels: writer.labels(id), ownAttributes }),
    );
    if (kind === 'active') create(directory, 'work', () => makeWork(directory));
    if (!created) return;
    held.with(id, 'fs', fsyncSync);
    fsyncSync(directory);
    fsyncSync(snapshots);
  });
  return created ? DONE : GONE;
}

function isThere(directory: number, name: string): boolean {
  return new FileStatus().read(directory, cString(name));
}

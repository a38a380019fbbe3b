import { type Dirent, lstatSync, readdirSync, type Stats } from 'node:fs';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, isGone } from '../../linux/errno.ts';
import { ownMounts } from '../../linux/mountinfo.ts';
import { type DirectoryEntry, readBatchesOf } from '../../linux/directory.ts';
import type { SeenRemoval, SeenSnapshot } from '../../metadata/repair/inspector.ts';
import { quoteWhole } from '../../quote.ts';
import type { Details, CheckContext } from '../context.ts';
import type { FindingCode } from '../../report.ts';

/** What is found is looked at again after so many milliseconds, while others work on the store. */
const SECOND_LOOKS_MS = [0, 150, 1000, 1500];

/** Something about a directory that is not as it should be. */
export interface Problem {
  readonly code: FindingCode;
  readonly details: Details;
}

/**
 * Looks again at ids about which something was found, with what the database says by then, and leaves out what is not so
 * any more: others may have been in the middle of it.
 */
export async function confirm(
  context: CheckContext,
  suspects: Map<number, Problem[]>,
  lookAgain: (id: number) => Problem[],
): Promise<Problem[]> {
  const rounds = context.inspector.shared ? SECOND_LOOKS_MS : SECOND_LOOKS_MS.slice(0, 1);
  for (const pause of rounds) {
    if (suspects.size === 0) break;
    if (pause > 0) await sleep(pause);
    for (const [id, before] of suspects) {
      context.looked(0);
      const still = lookAgain(id).filter(({ code }) => before.some((suspected) => suspected.code === code));
      if (still.length === 0) suspects.delete(id);
      else suspects.set(id, still);
    }
  }
  return [...suspects.values()].flat();
}

/** Rows against directories, and the directories that all is in. */
export async function checkDirectories(context: CheckContext): Promise<void> {
  const { layout, snapshots } = context;
  checkRoot(context);
  findCovered(context);
  const top = lstatSync(layout.snapshots, { throwIfNoEntry: false });
  if (top === undefined || !top.isDirectory()) {
    context.add(top === undefined ? 'snapshots-missing' : 'not-a-directory', {
      message: `${layout.snapshots} is ${top === undefined ? 'missing' : `not a directory but ${whatIs(top)}`}`,
      path: layout.snapshots,
    });
  } else if (top.dev !== lstatSync(layout.root).dev) {
    context.add('snapshots-filesystem', {
      message: `${layout.snapshots} is on another filesystem than the database`,
      path: layout.snapshots,
    });
  }
  const isThere = top?.isDirectory() === true;
  const listed = isThere ? list(context) : new Map<number, DirectoryEntry>();
  context.expect(snapshots.size + listed.size);
  const suspects = new Map<number, Problem[]>();
  const suspect = (id: number, problems: Problem[]): void => {
    if (problems.length > 0) suspects.set(id, problems);
  };
  for (const [id, row] of snapshots) {
    context.looked();
    if (!context.wants(id) || context.covered.has(id)) continue;
    // Through a link in the place of `snapshots/` there is nothing to see.
    const entry = isThere ? (listed.get(id) ?? entryOf(context, id)) : undefined;
    suspect(id, look(context, id, row, context.removals.get(id) ?? [], entry));
  }
  if (context.only === undefined) {
    for (const [id, entry] of listed) {
      context.looked();
      if (snapshots.has(id) || context.covered.has(id)) continue;
      suspect(id, look(context, id, undefined, context.removals.get(id) ?? [], entry));
    }
  }
  const { inspector } = context;
  const confirmed = await confirm(context, suspects, (id) =>
    look(
      context,
      id,
      inspector.snapshot(id),
      inspector.removalsOf(id),
      isThere ? entryOf(context, id) : undefined,
    ),
  );
  for (const { code, details } of confirmed) context.add(code, details);
  checkAge(context, confirmed);
}

/** What a database does not know of, although it hands out the ids in their order, was written later than all it knows. */
function checkAge(context: CheckContext, problems: readonly Problem[]): void {
  const { highWater, inspector } = context;
  if (highWater === undefined || inspector.files.wal || context.has('wal-missing')) return;
  const newer = problems.filter(
    ({ code, details }) => code === 'directory-unknown' && (details.id ?? 0) > highWater,
  );
  if (newer.length === 0) return;
  const most = newer.reduce((highest, { details }) => Math.max(highest, details.id ?? 0), 0);
  context.add('wal-missing', {
    message: `the database knows no id above ${highWater}, but directories go up to ${most}: it was copied without its -wal, or is older than they are`,
    path: `${context.layout.database}-wal`,
  });
}

function checkRoot(context: CheckContext): void {
  const { layout } = context;
  const { uid, mode } = lstatSync(layout.root);
  const me = process.geteuid?.() ?? 0;
  if (uid !== me && uid !== 0) {
    context.add('root-owner', { message: `the root belongs to user ${uid}, not ${me}`, path: layout.root });
  }
  const octal = (mode & 0o7777).toString(8).padStart(4, '0');
  if ((mode & 0o022) !== 0) {
    const message = `others may write to the root: its mode is ${octal}`;
    context.add('root-mode', { message, path: layout.root, severity: 'error' });
  } else if ((mode & 0o077) !== 0) {
    context.add('root-mode', {
      message: `others may look into the root: its mode is ${octal}`,
      path: layout.root,
    });
  }
  const database = lstatSync(layout.database);
  if ((database.mode & 0o077) !== 0) {
    context.add('database-mode', {
      message: `others may read the database: its mode is ${(database.mode & 0o7777).toString(8).padStart(4, '0')}`,
      path: layout.database,
    });
  }
}

/** Finds what is mounted over directories of the store, so that nobody sees what is in them. */
function findCovered(context: CheckContext): void {
  const { layout, snapshots, covered } = context;
  for (const { mountPoint } of ownMounts().entries) {
    const below = relative(layout.snapshots, mountPoint);
    const [, text, within] = /^([1-9]\d{0,15})(?:\/(?:fs|work)(\/.+)?)?$/s.exec(below) ?? [];
    const id = text === undefined ? undefined : Number(text);
    if (id === undefined && below !== '') continue;
    if (id === undefined || within === undefined) {
      if (id !== undefined) covered.set(id, mountPoint);
      const message = `something is mounted over ${mountPoint}`;
      const severity = id === undefined ? 'warning' : 'error';
      context.add('mounted-over', { message, id, path: mountPoint, severity });
    } else if (snapshots.get(id)?.kind === 'committed') {
      const message = `something is mounted at ${mountPoint}, in a layer that is committed: overlays do not show it`;
      context.add('mounted-over', { message, id, path: mountPoint, severity: 'info' });
    }
  }
}

/** The directories that are called like an id; what is called otherwise is told of. */
function list(context: CheckContext): Map<number, DirectoryEntry> {
  const listed = new Map<number, DirectoryEntry>();
  for (const batch of readBatchesOf(context.layout.snapshots)) {
    for (const entry of batch) {
      if (/^[1-9]\d{0,15}$/.test(entry.text)) {
        listed.set(Number(entry.text), entry);
      } else if (context.only === undefined) {
        context.looked();
        context.add('directory-unknown', {
          message: `${quoteWhole(entry.name.toString())} is not called like the directory of a snapshot`,
          path: Buffer.concat([Buffer.from(`${context.layout.snapshots}/`), entry.name]),
        });
      }
    }
  }
  return listed;
}

function whatIs(found: Pick<Stats, 'isSymbolicLink' | 'isFile'>): string {
  if (found.isSymbolicLink()) return 'a symbolic link';
  return found.isFile() ? 'a file' : 'something else';
}

/** What is called like an id in `snapshots/`, if anything is. */
function entryOf(context: CheckContext, id: number): Stats | undefined {
  return lstatSync(context.layout.directory(id), { throwIfNoEntry: false });
}

/** Looks at the directory of an id, going by what the database says of that. */
function look(
  context: CheckContext,
  id: number,
  row: SeenSnapshot | undefined,
  removals: readonly SeenRemoval[],
  entry: Stats | DirectoryEntry | undefined,
): Problem[] {
  const { layout } = context;
  const path = layout.directory(id);
  if (row === undefined) {
    if (entry === undefined || removals.some(({ part }) => part === 'all')) return [];
    return [unknown(id, path, entry)];
  }
  const me = context.quote(id);
  const open = row.kind !== 'committed';
  const again = open ? 'make it anew, empty' : null;
  const needsNone = row.kind === 'view' && row.parentId !== null;
  if (entry === undefined) {
    return needsNone
      ? []
      : [problem('directory-missing', id, path, `the directory of ${me} is missing`, { repair: again })];
  }
  if (!entry.isDirectory()) {
    return [problem('not-a-directory', id, path, `the directory of ${me} is none, but ${whatIs(entry)}`)];
  }
  if (needsNone) {
    const message = `${me} is a view on a parent and needs no directory`;
    return [problem('entry-extra', id, path, message)];
  }
  const entries = new Map(entriesOf(path).map((found) => [found.name.toString('latin1'), found]));
  const problems: Problem[] = [];
  const fs = entries.get('fs');
  entries.delete('fs');
  if (fs === undefined) {
    problems.push(
      problem('layer-missing', id, layout.fs(id), `the layer of ${me} is missing`, { repair: again }),
    );
  } else if (!fs.isDirectory()) {
    const message = `the layer of ${me} is no directory but ${whatIs(fs)}`;
    problems.push(problem('not-a-directory', id, layout.fs(id), message));
  }
  const work = entries.get('work');
  if (row.kind === 'active') {
    entries.delete('work');
    if (work === undefined) {
      problems.push(problem('work-missing', id, layout.work(id), `the work directory of ${me} is missing`));
    } else if (!work.isDirectory()) {
      const message = `the work directory of ${me} is none, but ${whatIs(work)}`;
      problems.push(problem('not-a-directory', id, layout.work(id), message));
    }
  } else if (removals.some(({ part }) => part === 'work')) {
    entries.delete('work');
  }
  for (const { name } of entries.values()) {
    const extra = Buffer.concat([Buffer.from(`${path}/`), name]);
    const message = `the directory of ${me} holds ${quoteWhole(name.toString())} too`;
    problems.push(problem('entry-extra', id, extra, message));
  }
  return problems;
}

function problem(
  code: FindingCode,
  id: number,
  path: string | Buffer,
  message: string,
  more: Partial<Details> = {},
): Problem {
  return { code, details: { message, id, path, ...more } };
}

function unknown(id: number, path: string, entry: Stats | DirectoryEntry): Problem {
  if (entry.isDirectory() && isSkeleton(path)) {
    return problem('skeleton', id, path, `the empty directory ${id} belongs to no snapshot`);
  }
  return problem('directory-unknown', id, path, `the directory ${id} belongs to no snapshot`);
}

/** Whether a directory is what a snapshot begins with, with nothing in it. */
export function isSkeleton(path: string): boolean {
  return entriesOf(path).every((entry) => {
    const name = entry.name.toString('latin1');
    return (
      (name === 'fs' || name === 'work') && entry.isDirectory() && entriesOf(join(path, name)).length === 0
    );
  });
}

/** What is in a directory; nothing if it has gone. */
function entriesOf(path: string): Dirent<Buffer>[] {
  try {
    return readdirSync(path, { withFileTypes: true, encoding: 'buffer' });
  } catch (error) {
    if (isGone(error) || errnoOf(error) === 'EACCES') return [];
    throw error;
  }
}

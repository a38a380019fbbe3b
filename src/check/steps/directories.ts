import { fstatSync, lstatSync, readlinkSync, type Stats } from 'node:fs';
import { entriesWithin, isSkeleton } from '../../layers/directories.ts';
import { type DirectoryEntry, readBatchesOf } from '../../linux/directory-entries.ts';
import { FileStatus } from '../../linux/file-status.ts';
import { cString } from '../../linux/foreign.ts';
import { fdPath, pathIn } from '../../linux/tree-walk.ts';
import { StoreMounts } from '../../layers/store-mounts.ts';
import { plausibleId } from '../../metadata/repair/plausible-id.ts';
import type { SeenRemoval, SeenSnapshot } from '../../metadata/repair/inspector.ts';
import { confirm } from '../confirm.ts';
import { type CheckContext, isWanted } from '../context.ts';
import { type Problem, problem } from '../problem.ts';
import { checkPlace } from './place.ts';

/** Checks the directories of the snapshots against the rows, and the directories that hold them all. */
export async function checkDirectories(context: CheckContext): Promise<void> {
  const { held, rows, inspector, progress, problems } = context;
  checkPlace(context);
  checkModes(context);
  const covered = await findCovered(context);
  const top = checkTop(context);
  if (top === 'something else') return;
  const listed = top === 'a directory' ? list(context) : undefined;
  progress.expect(rows.snapshots.size + (listed?.size ?? 0));
  const suspects = new Map<number, Problem[]>();
  for (const [id, row] of rows.snapshots) {
    progress.advance();
    if (!isWanted(context, id) || covered.has(id)) continue;
    const entry = listed === undefined ? undefined : (listed.get(id) ?? entryOf(held.snapshots, String(id)));
    suspects.set(id, checkDirectory(context, { id, row, removals: rows.removals.get(id) ?? [], entry }));
  }
  for (const [id, entry] of context.only === undefined ? (listed ?? []) : []) {
    progress.advance();
    if (rows.snapshots.has(id) || covered.has(id)) continue;
    suspects.set(id, checkUnknown(context, { id, removals: rows.removals.get(id) ?? [], entry }));
  }
  const confirmed = await confirm(context, suspects, (id) => {
    const row = inspector.snapshot(id);
    const removals = inspector.removalsOf(id);
    const entry = listed === undefined ? undefined : entryOf(held.snapshots, String(id));
    return row === undefined
      ? checkUnknown(context, { id, removals, entry })
      : checkDirectory(context, { id, row, removals, entry });
  });
  problems.addAll(confirmed);
  checkAge(context, confirmed);
}

/** Ids are assigned in ascending order, so a directory with a higher id than any known is newer than the database. */
function checkAge({ rows, inspector, layout, problems }: CheckContext, found: readonly Problem[]): void {
  const { highWater } = rows;
  if (highWater === undefined || inspector.files.wal || problems.has('wal-missing')) return;
  const unknown = found.filter(({ code }) => code === 'directory-unknown');
  const highest = unknown.reduce((most, { id }) => Math.max(most, plausibleId(id)), 0);
  if (highest <= highWater) return;
  problems.add('wal-missing', { newer: { highWater, highest }, path: `${layout.database}-wal` });
}

/** Checks the owner and the modes of the root and the database. */
function checkModes({ held, layout, problems }: CheckContext): void {
  const root = fstatSync(held.fd);
  const me = process.geteuid?.() ?? 0;
  if (root.uid !== me && root.uid !== 0) {
    problems.add('root-owner', { uid: root.uid, me, path: layout.root });
  }
  if ((root.mode & 0o077) !== 0) problems.add('root-mode', { mode: root.mode, path: layout.root });
  const { mode } = lstatSync(layout.database);
  if ((mode & 0o077) !== 0) problems.add('database-mode', { mode, path: layout.database });
}

/** Finds the mounts over directories of the store. @returns the ids whose directories they hide */
async function findCovered({ held, layout, rows, problems }: CheckContext): Promise<Set<number>> {
  const covered = new Set<number>();
  if (isMountRoot(held.fd, 'snapshots')) {
    problems.add('mounted-over', { path: layout.snapshots, hidden: 'all directories' });
  }
  for (const { below, mountPoint: path } of await new StoreMounts(held).mountPoints()) {
    const [, text, inside] = /^([1-9]\d{0,15})(?:\/(?:fs|work)(\/.+)?)?$/s.exec(below) ?? [];
    if (text === undefined) continue;
    const id = Number(text);
    if (inside === undefined) {
      covered.add(id);
      problems.add('mounted-over', { id, path, hidden: 'a directory' });
    } else if (rows.snapshots.get(id)?.kind === 'committed') {
      problems.add('mounted-over', { id, path, hidden: 'a part of a layer' });
    }
  }
  return covered;
}

function isMountRoot(directory: number, name: string): boolean {
  const status = new FileStatus();
  return status.read(directory, cString(name)) && status.isMountRoot;
}

/** Checks the directory of all snapshots. @returns what is in its place; a link is not followed */
function checkTop({ held, layout, problems }: CheckContext): 'a directory' | 'nothing' | 'something else' {
  const path = layout.snapshots;
  const top = entryOf(held.fd, 'snapshots');
  if (top === undefined) {
    problems.add('snapshots-missing', { path });
  } else if (top.isSymbolicLink()) {
    problems.add('snapshots-link', {
      path,
      target: readlinkSync(pathIn(held.fd, Buffer.from('snapshots')), 'utf8'),
    });
  } else if (!top.isDirectory()) {
    problems.add('not-a-directory', { what: path, type: typeOf(top), path });
  } else if (top.dev !== fstatSync(held.fd).dev) {
    problems.add('snapshots-filesystem', { path });
  }
  if (top === undefined) return 'nothing';
  return top.isDirectory() ? 'a directory' : 'something else';
}

/** Lists the directories that are named after an id, and reports other names. */
function list({ held, layout, only, progress, problems }: CheckContext): Map<number, DirectoryEntry> {
  const listed = new Map<number, DirectoryEntry>();
  for (const batch of readBatchesOf(fdPath(held.snapshots))) {
    for (const entry of batch) {
      if (/^[1-9]\d{0,15}$/.test(entry.text)) {
        listed.set(Number(entry.text), entry);
      } else if (only === undefined) {
        progress.advance();
        const path = Buffer.concat([Buffer.from(`${layout.snapshots}/`), entry.name]);
        problems.add('directory-unknown', { name: entry.name.toString(), path });
      }
    }
  }
  return listed;
}

/** An id without a row, its entries in the removal journal, and what `snapshots/` has under its name. */
interface Unknown {
  readonly id: number;
  readonly removals: readonly SeenRemoval[];
  readonly entry: Stats | DirectoryEntry | undefined;
}

/** The same with a row. */
interface Known extends Unknown {
  readonly row: SeenSnapshot;
}

/** Checks what is named after an id without a row. */
function checkUnknown({ held, layout }: CheckContext, { id, removals, entry }: Unknown): Problem[] {
  if (entry === undefined || removals.some(({ part }) => part === 'all')) return [];
  const path = layout.directory(id);
  return entry.isDirectory() && isSkeleton(held, id)
    ? [problem('skeleton', { id, path })]
    : [problem('directory-unknown', { id, name: String(id), path })];
}

/** Checks the directory of a snapshot. */
function checkDirectory(context: CheckContext, known: Known): Problem[] {
  const { id, row, entry } = known;
  const { kind } = row;
  const snapshot = context.rows.quote(id);
  const path = context.layout.directory(id);
  const needsNone = kind === 'view' && row.parentId !== null;
  if (entry === undefined)
    return needsNone ? [] : [problem('directory-missing', { snapshot, kind, id, path })];
  if (!entry.isDirectory()) {
    const what = `the directory of ${snapshot}`;
    return [problem('not-a-directory', { what, type: typeOf(entry), id, path })];
  }
  if (needsNone) return [problem('entry-extra', { snapshot, name: undefined, id, path })];
  return checkEntries(context, known);
}

/** Checks what the directory of a snapshot holds. */
function checkEntries({ held, layout, rows }: CheckContext, { id, row, removals }: Known): Problem[] {
  const { kind } = row;
  const snapshot = rows.quote(id);
  const directory = layout.directory(id);
  const entries = new Map(entriesWithin(held, id).map((entry) => [entry.name.toString('latin1'), entry]));
  const problems: Problem[] = [];
  const fs = entries.get('fs');
  entries.delete('fs');
  if (fs === undefined) {
    problems.push(problem('layer-missing', { snapshot, kind, id, path: layout.fs(id) }));
  } else if (!fs.isDirectory()) {
    const what = `the layer of ${snapshot}`;
    problems.push(problem('not-a-directory', { what, type: typeOf(fs), id, path: layout.fs(id) }));
  }
  const work = entries.get('work');
  if (kind === 'active') {
    entries.delete('work');
    if (work === undefined) {
      problems.push(problem('work-missing', { snapshot, id, path: layout.work(id) }));
    } else if (!work.isDirectory()) {
      const what = `the work directory of ${snapshot}`;
      problems.push(problem('not-a-directory', { what, type: typeOf(work), id, path: layout.work(id) }));
    }
  } else if (removals.some(({ part }) => part === 'work')) {
    entries.delete('work');
  }
  for (const { name } of entries.values()) {
    const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
    problems.push(problem('entry-extra', { snapshot, name: name.toString(), id, path }));
  }
  return problems;
}

/** What has a name in an open directory, if anything has. */
function entryOf(directory: number, name: string): Stats | undefined {
  return lstatSync(pathIn(directory, Buffer.from(name)), { throwIfNoEntry: false });
}

/** What something is instead of a directory. */
function typeOf(entry: Pick<Stats, 'isSymbolicLink' | 'isFile'>): string {
  if (entry.isSymbolicLink()) return 'a symbolic link';
  return entry.isFile() ? 'a file' : 'neither a directory nor a file';
}

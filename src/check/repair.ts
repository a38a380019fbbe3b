import { chmodSync, copyFileSync, existsSync, lstatSync, mkdirSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeLayer, makeWork } from '../layers/directories.ts';
import type { Layout } from '../layers/layout.ts';
import { placeFor, setAside, writeNote } from '../layers/lost-and-found.ts';
import { measureUsage } from '../layers/usage.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf, isGone } from '../linux/errno.ts';
import { type Mounts, findUse, lookAtAllMounts } from '../linux/mountinfo.ts';
import { syncPath } from '../linux/sync.ts';
import { walkTree } from '../linux/tree.ts';
import { RepairWriter } from '../metadata/repair/repair-writer.ts';
import { describe } from './findings.ts';
import { highestIdOnDisk } from './ids-on-disk.ts';
import { isSkeleton } from './steps/directories.ts';
import type { Found, CheckContext } from './context.ts';
import type { FindingCode, Repair } from '../report.ts';

/** What came of one repair: where something was set aside, or that there was nothing left to do. */
type Outcome = { readonly outcome: 'done' | 'gone' | 'refused'; readonly detail?: string };

const DONE: Outcome = { outcome: 'done' };
const GONE: Outcome = { outcome: 'gone' };

/** What all repairs work with. */
interface Workshop {
  readonly layout: Layout;
  readonly writer: RepairWriter;
  readonly mounts: readonly Mounts[];
}

/** Repairs one finding with the write lock held, once it has seen that it is still so. */
type Action = (workshop: Workshop, found: Found) => Outcome;

/** What is done before SQLite opens the database for writing, which lets go of the part of a log that cannot be read. */
const BEFORE_OPENING: ReadonlyMap<FindingCode, (layout: Layout, found: Found) => Outcome> = new Map([
  ['root-mode', (layout: Layout) => narrow(layout.root, 0o700)],
  ['database-mode', (layout: Layout) => narrow(layout.database, 0o600)],
  ['wal-damaged', keepCopy],
]);

/** The actions by the code of what they repair, in the order in which they are done: first what others rely on. */
const ACTIONS: ReadonlyMap<FindingCode, Action> = new Map<FindingCode, Action>([
  ['schema-differs', remake],
  ['index-damaged', reindex],
  ['foreign-key', takeStrayLabels],
  ['live-and-journalled', takeContradictions],
  ['kind-and-usage', setUsage],
  ['high-water-low', raiseHighWater],
  ['snapshots-missing', ({ layout }) => makeDirectory(layout.snapshots)],
  ['not-a-directory', setAsideUnlessDirectory],
  ['directory-unknown', setAsideUnknown],
  ['entry-extra', setAsideExtra],
  ['skeleton', removeSkeleton],
  ['directory-missing', makeWhole],
  ['layer-missing', makeWhole],
  ['work-missing', makeWhole],
]);

/**
 * Repairs what a check found, as far as it can be, each finding with the write lock held and only if it is still so.
 * Nothing is deleted: what is in the way goes to `lost+found/`, with a note beside it. While the database itself is
 * damaged, nothing is done by what it says.
 */
export async function repairStore(
  layout: Layout,
  context: CheckContext,
  { dryRun }: { dryRun: boolean },
): Promise<Repair[]> {
  const wanted = context.found
    .filter(({ finding }) => finding.repair !== null)
    .toSorted((a, b) => orderOf(a.finding.code) - orderOf(b.finding.code));
  if (wanted.length === 0) return [];
  const damage = context.found.find(
    ({ finding: { step, severity, repair } }) =>
      step === 'database' && severity === 'error' && repair === null,
  );
  if (damage !== undefined) {
    const detail = `the database has to be brought in order first: ${damage.finding.message}`;
    return wanted.map((found) => ({ ...outline(found), outcome: 'refused', detail }));
  }
  if (dryRun) return wanted.map((found) => ({ ...outline(found), outcome: 'planned' }));
  const repairs: Repair[] = [];
  for (const found of wanted) {
    const action = BEFORE_OPENING.get(found.finding.code);
    if (action !== undefined) repairs.push({ ...outline(found), ...action(layout, found) });
  }
  const writer = await RepairWriter.open(layout.database);
  try {
    const workshop: Workshop = { layout, writer, mounts: await lookAtAllMounts() };
    for (const found of wanted) {
      const action = ACTIONS.get(found.finding.code);
      if (action !== undefined)
        repairs.push({ ...outline(found), ...(await perform(workshop, action, found)) });
    }
    return repairs;
  } finally {
    writer.close();
  }
}

function orderOf(code: FindingCode): number {
  return [...ACTIONS.keys()].indexOf(code);
}

function outline({ finding: { code, snapshot, path, repair } }: Found): Omit<Repair, 'outcome'> {
  return { code, snapshot, path, action: repair ?? '' };
}

async function perform(workshop: Workshop, action: Action, found: Found): Promise<Outcome> {
  try {
    const measured = await measureFor(workshop, found);
    return await workshop.writer.locked(() => action(workshop, measured));
  } catch (error) {
    const failure = toSnapshotError(error, describe(found.finding.code).repair ?? 'repairing');
    if (failure instanceof SnapshotError && failure.code !== 'INTERNAL') {
      return { outcome: 'refused', detail: failure.message };
    }
    throw failure;
  }
}

/** A usage is measured before the lock is taken: the layer of a committed snapshot does not change. */
async function measureFor({ layout, writer }: Workshop, found: Found): Promise<Found> {
  const { code, id } = found.finding;
  if (code !== 'kind-and-usage' || id === null || writer.snapshot(id)?.kind !== 'committed') return found;
  const usage = await measureUsage(walkTree(layout.fs(id)));
  return { ...found, details: { ...found.details, usage } };
}

// The database ---------------------------------------------------------------------------------------------------

function keepCopy(layout: Layout, { finding }: Found): Outcome {
  const place = placeFor(layout, undefined);
  mkdirSync(place, { mode: 0o700 });
  for (const suffix of ['', '-wal']) {
    const copy = join(place, `metadata.db${suffix}`);
    copyFileSync(`${layout.database}${suffix}`, copy);
    syncPath(copy);
  }
  writeNote(layout, { what: 'a copy of the database and its write-ahead log', why: finding.message }, place);
  syncPath(place);
  syncPath(layout.lostAndFound);
  return { outcome: 'done', detail: place };
}

function remake({ writer }: Workshop, { details: { difference } }: Found): Outcome {
  if (difference === undefined) return GONE;
  writer.remake(difference);
  return DONE;
}

function reindex({ writer }: Workshop): Outcome {
  writer.reindex();
  return DONE;
}

function takeStrayLabels({ layout, writer }: Workshop, { finding }: Found): Outcome {
  const labels = writer.takeStrayLabels();
  if (labels.length === 0) return GONE;
  return noted(layout, { what: 'labels of snapshots that are not there', why: finding.message, labels });
}

function takeContradictions({ layout, writer }: Workshop, { finding }: Found): Outcome {
  const entries = finding.id === null ? [] : writer.takeContradictions(finding.id);
  if (entries.length === 0) return GONE;
  return noted(layout, { what: 'entries of the removal journal', why: finding.message, entries });
}

function setUsage({ layout, writer }: Workshop, { finding, details }: Found): Outcome {
  const row = finding.id === null ? undefined : writer.snapshot(finding.id);
  if (row === undefined) return GONE;
  const measured = [row.inodes, row.size].filter((value) => value !== null).length;
  if (measured === (row.kind === 'committed' ? 2 : 0)) return GONE;
  const usage = row.kind === 'committed' ? details.usage : null;
  if (usage === undefined) return { outcome: 'refused', detail: 'its layer could not be measured' };
  writer.setUsage(row.id, usage);
  return noted(layout, { what: 'the row of a snapshot, as it was', why: finding.message, row });
}

function raiseHighWater({ layout, writer }: Workshop): Outcome {
  return writer.raiseHighWater(highestIdOnDisk(layout)) ? DONE : GONE;
}

function noted(layout: Layout, note: { what: string; why: string; [detail: string]: unknown }): Outcome {
  const file = writeNote(layout, note);
  syncPath(file);
  syncPath(layout.lostAndFound);
  return { outcome: 'done', detail: file };
}

// Directories ----------------------------------------------------------------------------------------------------

function narrow(path: string, mode: number): Outcome {
  if ((lstatSync(path).mode & 0o7777) === mode) return GONE;
  chmodSync(path, mode);
  return DONE;
}

function makeDirectory(path: string): Outcome {
  if (existsSync(path)) return GONE;
  mkdirSync(path, { mode: 0o700 });
  syncPath(dirname(path));
  return DONE;
}

function move({ layout, mounts }: Workshop, { finding, details }: Found): Outcome {
  const { path } = details;
  if (path === undefined || lstatSync(path, { throwIfNoEntry: false }) === undefined) return GONE;
  const use = findUse(mounts, path.toString());
  if (use !== undefined) return { outcome: 'refused', detail: use };
  try {
    const place = setAside(layout, path, finding.id ?? undefined, finding.message);
    syncPath(dirname(path.toString()));
    return { outcome: 'done', detail: place };
  } catch (error) {
    if (isGone(error)) return GONE;
    if (!['EBUSY', 'EXDEV'].includes(errnoOf(error))) throw error;
    return { outcome: 'refused', detail: `something is mounted on ${finding.path}` };
  }
}

function setAsideUnlessDirectory(workshop: Workshop, found: Found): Outcome {
  const { path } = found.details;
  const now = path === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false });
  return now === undefined || now.isDirectory() ? GONE : move(workshop, found);
}

function setAsideUnknown(workshop: Workshop, found: Found): Outcome {
  const { id } = found.finding;
  return id !== null && isKnown(workshop, id) ? GONE : move(workshop, found);
}

function setAsideExtra(workshop: Workshop, found: Found): Outcome {
  const { writer, layout } = workshop;
  const { id, path } = found.finding;
  const row = id === null ? undefined : writer.snapshot(id);
  if (id === null || row === undefined) return GONE;
  // Its time has come to be deleted in the ordinary way.
  if (path === layout.work(id) && (row.kind === 'active' || writer.journalled(id).includes('work')))
    return GONE;
  return move(workshop, found);
}

/** Not recursively: what is not empty after all stays. */
function removeSkeleton(workshop: Workshop, { finding }: Found): Outcome {
  const { layout } = workshop;
  const { id } = finding;
  if (id === null || isKnown(workshop, id) || !existsSync(layout.directory(id))) return GONE;
  if (!isSkeleton(layout.directory(id))) return { outcome: 'refused', detail: 'it is not empty any more' };
  for (const path of [layout.work(id), layout.fs(id), layout.directory(id)])
    if (existsSync(path)) rmdirSync(path);
  return DONE;
}

function isKnown({ writer }: Workshop, id: number): boolean {
  return writer.snapshot(id) !== undefined || writer.journalled(id).includes('all');
}

/** Makes the directories of an open snapshot that are missing, empty. */
function makeWhole({ layout, writer }: Workshop, { finding }: Found): Outcome {
  const { id } = finding;
  const row = id === null ? undefined : writer.snapshot(id);
  if (id === null || row === undefined || row.kind === 'committed') return GONE;
  let made = false;
  const make = (path: string, body: () => void): void => {
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
    body();
    made = true;
  };
  make(layout.directory(id), () => mkdirSync(layout.directory(id), { mode: 0o700 }));
  const { parentId } = row;
  make(layout.fs(id), () => makeLayer(layout, { id, parentId, labels: writer.labels(id) }));
  if (row.kind === 'active') make(layout.work(id), () => makeWork(layout, id));
  if (!made) return GONE;
  syncPath(layout.fs(id));
  syncPath(layout.directory(id));
  syncPath(layout.snapshots);
  return DONE;
}

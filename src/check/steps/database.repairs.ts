import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { placeFor, writeNote } from '../../layers/lost-and-found.ts';
import { syncPath } from '../../linux/sync-path.ts';
import type { Problem } from '../problem.ts';
import {
  DONE,
  type FileRepairContext,
  GONE,
  type RepairContext,
  type RepairOutcome,
  type Repairs,
  locked,
  note,
} from '../repair-context.ts';
import type { DATABASE_FINDINGS } from './database.findings.ts';

/** What repair does about the findings of the step `database`. */
export const databaseRepairs: Repairs<typeof DATABASE_FINDINGS> = {
  'wal-damaged': keepCopy,
  'schema-differs': locked(create),
  'index-damaged': locked(reindex),
  'foreign-key': locked(moveStrayLabels),
};

function keepCopy({ layout }: FileRepairContext, { message }: Problem): RepairOutcome {
  if (!existsSync(`${layout.database}-wal`)) return GONE;
  const place = placeFor(layout, undefined);
  mkdirSync(place, { mode: 0o700 });
  for (const suffix of ['', '-wal']) {
    const copy = join(place, `metadata.db${suffix}`);
    copyFileSync(`${layout.database}${suffix}`, copy);
    syncPath(copy);
  }
  writeNote(layout, { what: 'a copy of the database and its write-ahead log', why: message }, place);
  syncPath(place);
  syncPath(layout.lostAndFound);
  return { outcome: 'done', detail: place };
}

function create({ writer }: RepairContext, { difference }: Problem): RepairOutcome {
  if (difference === undefined) return GONE;
  writer.remake(difference);
  return DONE;
}

function reindex({ writer }: RepairContext): RepairOutcome {
  writer.reindex();
  return DONE;
}

function moveStrayLabels({ layout, writer }: RepairContext, { message }: Problem): RepairOutcome {
  const labels = writer.takeStrayLabels();
  if (labels.length === 0) return GONE;
  return note(layout, { what: 'labels of snapshots that do not exist', why: message, labels });
}

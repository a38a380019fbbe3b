import { closeSync, constants, fsyncSync, lstatSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { placeFor, setAside, writeNote } from '../../layers/lost-and-found.ts';
import { copyFile } from '../../linux/copy-file.ts';
import { createDirectory, moveFile, openDirectoryBeneath } from '../../linux/file-calls.ts';
import { cString } from '../../linux/foreign.ts';
import { openPlain, statPlain } from '../../linux/plain-file.ts';
import { syncPath } from '../../linux/sync-path.ts';
import { fdPath } from '../../linux/tree-walk.ts';
import { backupsOf } from '../../metadata/backup/files.ts';
import type { SchemaDifference } from '../../metadata/schema.ts';
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
  'wrong-type': moveWrongType,
  'wal-damaged': keepCopy,
  'schema-differs': locked(correctSchema),
  'index-damaged': locked(reindex),
  'foreign-key': locked(moveStrayLabels),
};

function moveWrongType({ held, layout }: FileRepairContext, { path, message }: Problem): RepairOutcome {
  const found = path === undefined ? undefined : lstatSync(path, { throwIfNoEntry: false });
  if (path === undefined || found === undefined) return GONE;
  const { lostAndFound } = layout;
  const ofDirectory = path === lostAndFound || path === backupsOf(layout.database);
  if (ofDirectory ? found.isDirectory() : found.isFile()) return GONE;
  let from = path;
  if (path === lostAndFound) {
    from = `${lostAndFound}-${Date.now()}-${process.pid}`;
    moveFile(held.fd, cString(basename(path)), held.fd, cString(basename(from)));
  }
  return { outcome: 'done', detail: setAside(held, from, undefined, message) };
}

function keepCopy({ held, layout }: FileRepairContext, { message }: Problem): RepairOutcome {
  if (statPlain(`${layout.database}-wal`) === undefined) return GONE;
  const place = placeFor(held, undefined);
  const lostAndFound = held.make('lost+found');
  createDirectory(lostAndFound, cString(place.name), 0o700);
  const directory = openDirectoryBeneath(lostAndFound, cString(place.name));
  try {
    for (const suffix of ['', '-wal']) {
      const copy = join(fdPath(directory), `metadata.db${suffix}`);
      copyFile(`${layout.database}${suffix}`, copy);
      syncPath(copy);
    }
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
  writeNote(held, { what: 'a copy of the database and its write-ahead log', why: message }, place);
  return { outcome: 'done', detail: place.path };
}

function correctSchema(context: RepairContext, { difference, message }: Problem): RepairOutcome {
  const { held, writer } = context;
  if (difference === undefined) return GONE;
  const sql = writer.sqlOf(difference);
  if (difference.problem !== 'extra') {
    writer.remake(difference);
    return sql === undefined
      ? DONE
      : note(held, { what: `the ${difference.type} as it was`, why: message, sql });
  }
  if (sql === undefined) return GONE;
  const kept = difference.type === 'table' ? keepRows(context, difference) : {};
  const outcome = note(held, { what: `a ${difference.type} that was added`, why: message, sql, ...kept });
  writer.drop(difference);
  return outcome;
}

/** Writes the rows of a table that was added to a file, one JSON object a line. @returns where they are */
function keepRows({ held, writer }: RepairContext, table: SchemaDifference): { rows: string } {
  const place = placeFor(held, undefined);
  const file = join(fdPath(held.make('lost+found')), place.name);
  const fd = openPlain(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    for (const row of writer.rowsOf(table)) {
      writeFileSync(fd, `${JSON.stringify(row)}\n`);
    }
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return { rows: place.path };
}

function reindex({ writer }: RepairContext): RepairOutcome {
  writer.reindex();
  return DONE;
}

function moveStrayLabels({ held, writer }: RepairContext, { message }: Problem): RepairOutcome {
  const labels = writer.takeStrayLabels();
  if (labels.length === 0) return GONE;
  return note(held, { what: 'labels of snapshots that do not exist', why: message, labels });
}

import BetterSqlite3 from 'better-sqlite3';
import { checkFiles } from '../database-files.ts';
import { readVersion } from '../migrate.ts';
import { plausibleId } from '../repair/plausible-id.ts';
import { missingTables } from '../schema.ts';

/** How far a store had come when a backup of it was made. */
interface Progress {
  /** The highest id that had been assigned. */
  readonly highWater: number;
  /** The snapshots, and the ids reserved for copies: while no id is assigned there can only be fewer. */
  readonly live: number;
  /** The snapshots: a reservation becomes one, or is given up. */
  readonly snapshots: number;
  readonly committed: number;
  /** When a snapshot was last changed, in microseconds, by the clock of the time. */
  readonly updatedUs: number;
}

/**
 * Sorts backups of a store by what is in them, the newest first. Neither their names nor their times say that: the clock
 * may have been wrong when one was made. Those that cannot be read come last.
 */
export function newestFirst(files: readonly string[]): string[] {
  return files
    .map((file) => ({ file, progress: readProgress(file) }))
    .toSorted((a, b) => compare(a.progress, b.progress) || (a.file < b.file ? 1 : -1))
    .map(({ file }) => file);
}

function compare(a: Progress | undefined, b: Progress | undefined): number {
  if (a === undefined || b === undefined) return Number(a === undefined) - Number(b === undefined);
  return (
    b.highWater - a.highWater ||
    a.live - b.live ||
    b.snapshots - a.snapshots ||
    b.committed - a.committed ||
    b.updatedUs - a.updatedUs
  );
}

function readProgress(file: string): Progress | undefined {
  try {
    checkFiles(file);
    const db = new BetterSqlite3(file, { readonly: true, fileMustExist: true });
    try {
      db.pragma('trusted_schema = off');
      if (readVersion(db) === 0 || missingTables(db).length > 0) return undefined;
      const progress = db
        .prepare<[], Progress>(`
          select (select max(id) from high_water) as highWater,
                 (select count(*) from removal where state = 'reserved') + count(*) as live,
                 count(*) as snapshots,
                 count(*) filter (where kind = 'committed') as committed,
                 coalesce(max(updated_us), 0) as updatedUs
            from snapshot`)
        .get();
      return progress && { ...progress, highWater: plausibleId(progress.highWater) };
    } finally {
      db.close();
    }
  } catch {
    return undefined;
  }
}

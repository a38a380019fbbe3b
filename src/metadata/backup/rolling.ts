import { mkdirSync, statSync } from 'node:fs';
import { runInChild } from '../../linux/child.ts';
import { hasDirectory } from '../../linux/plain-file.ts';
import { escapeHidden } from '../../quote.ts';
import { backupTask } from './backup.ts';
import { backupsOf, listBackups, nameBackup } from './files.ts';

/** How automatic backups are made. */
export interface BackupSettings {
  /** The time between two backups, in milliseconds. */
  readonly every: number;
  /** How many backups are kept. */
  readonly keep: number;
}

/** The longest time between two checks of the newest backup's age, in milliseconds, and the time until the first. */
const CHECK_MS = 60_000;

/** Copies the database to `backups/` at intervals, while a driver is open. */
export class RollingBackup {
  readonly #database: string;
  readonly #settings: BackupSettings;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;

  constructor(database: string, settings: BackupSettings) {
    this.#database = database;
    this.#settings = settings;
    // Not at once: a process that opens the store only for a moment must not wait for a backup.
    this.#timer = setInterval(() => this.#start(), Math.min(settings.every, CHECK_MS)).unref();
  }

  /** Stops, and waits for a backup that has begun. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#makeIfDue()
      .catch((error: unknown) => {
        process.emitWarning(
          `the database could not be backed up: ${escapeHidden(String(error))}`,
          'OverliteWarning',
        );
      })
      .finally(() => (this.#running = undefined));
  }

  async #makeIfDue(): Promise<void> {
    const { every, keep } = this.#settings;
    if (listBackups(this.#database, 'rolling').some((file) => isYoung(file, every))) return;
    const directory = backupsOf(this.#database);
    if (!hasDirectory(directory)) mkdirSync(directory, { mode: 0o700 });
    await runInChild(backupTask, {
      database: this.#database,
      file: nameBackup(this.#database),
      keep,
    });
  }
}

/** Whether a backup was made less than so many milliseconds ago. One from the future was made when the clock was wrong. */
function isYoung(file: string, most: number): boolean {
  const { mtimeMs } = statSync(file, { throwIfNoEntry: false }) ?? { mtimeMs: 0 };
  const age = Date.now() - mtimeMs;
  return age >= 0 && age < most;
}

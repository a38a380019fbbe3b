import { mkdirSync, statSync } from 'node:fs';
import { backupDatabase } from './backup.ts';
import { backupsOf, listBackups, nameBackup, pruneBackups } from './files.ts';

/** How backups are made by themselves. */
export interface BackupSettings {
  /** How old the newest has to be for another to be made, in milliseconds. */
  readonly every: number;
  /** How many are kept. */
  readonly keep: number;
}

/** The longest between two looks at how old the newest backup is, in milliseconds, and the time until the first. */
const LOOK_MS = 60_000;

/** Copies the database to `backups/` every so often, for as long as a driver is open. */
export class RollingBackup {
  readonly #database: string;
  readonly #settings: BackupSettings;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;

  constructor(database: string, settings: BackupSettings) {
    this.#database = database;
    this.#settings = settings;
    // Whoever opens the store for a moment only is not kept waiting.
    this.#timer = setInterval(() => this.#look(), Math.min(settings.every, LOOK_MS)).unref();
  }

  /** Lets a copy that has begun be finished, which does not take long. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  #look(): void {
    this.#running ??= this.#makeIfDue()
      .catch((error: unknown) => {
        process.emitWarning(`the database could not be backed up: ${String(error)}`, 'OverliteWarning');
      })
      .finally(() => (this.#running = undefined));
  }

  async #makeIfDue(): Promise<void> {
    const { every, keep } = this.#settings;
    const [newest] = listBackups(this.#database, 'rolling');
    if (newest !== undefined && Date.now() - statSync(newest).mtimeMs < every) return;
    mkdirSync(backupsOf(this.#database), { recursive: true, mode: 0o700 });
    await backupDatabase(this.#database, nameBackup(this.#database));
    pruneBackups(this.#database, 'rolling', keep);
  }
}

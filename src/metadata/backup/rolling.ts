import { statSync } from 'node:fs';
import { join } from 'node:path';
import { guarded, warn } from '../../guarded.ts';
import { runInChild } from '../../linux/child.ts';
import { identityOf } from '../../linux/identity.ts';
import { fdPath } from '../../linux/tree-walk.ts';
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

/** The store whose database is backed up. */
export interface BackedUpStore {
  readonly database: string;
  /** Throws if the path of the database leads elsewhere by now. */
  readonly check: () => void;
  /** Opens `backups/`, which is made if it is missing. The descriptor stays open. */
  readonly openBackups: () => number;
}

/** Copies the database to `backups/` at intervals, while a driver is open. */
export class RollingBackup {
  readonly #store: BackedUpStore;
  readonly #settings: BackupSettings;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;

  constructor(store: BackedUpStore, settings: BackupSettings) {
    this.#store = store;
    this.#settings = settings;
    // Not at once: a process that opens the store only for a moment must not wait for a backup.
    this.#timer = setInterval(
      guarded(() => this.#start()),
      Math.min(settings.every, CHECK_MS),
    ).unref();
  }

  /** Stops, and waits for a backup that has begun. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#makeIfDue()
      .catch((error: unknown) => warn(error, 'the database could not be backed up'))
      .finally(() => (this.#running = undefined));
  }

  async #makeIfDue(): Promise<void> {
    const { every, keep } = this.#settings;
    const { database, check, openBackups } = this.#store;
    check();
    const directory = openBackups();
    if (listBackups(database, 'rolling', fdPath(directory)).some((file) => isYoung(file, every))) return;
    await runInChild(backupTask, {
      database,
      file: join(backupsOf(database), nameBackup(database)),
      identity: identityOf(database),
      rolling: { directory: identityOf(directory), keep },
    });
  }
}

/** Whether a backup was made less than so many milliseconds ago. One from the future was made when the clock was wrong. */
function isYoung(file: string, most: number): boolean {
  const { mtimeMs } = statSync(file, { throwIfNoEntry: false }) ?? { mtimeMs: 0 };
  const age = Date.now() - mtimeMs;
  return age >= 0 && age < most;
}

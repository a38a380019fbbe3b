import {
  type OptionCheck,
  boolean,
  callback,
  checkOptions,
  kindOf,
  milliseconds,
  oneOf,
  optional,
  strings,
  withDefault,
} from '../arguments.ts';
import { SnapshotError, wrongType } from '../errors.ts';
import type { BackupSettings } from '../metadata/backup/rolling.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../metadata/busy.ts';
import { quote } from '../quote.ts';

/** How a driver is opened. */
export interface DriverOptions {
  /**
   * `full` (default): what a resolved promise stands for survives a power cut, directories and the contents of
   * committed layers included. `metadata` leaves their syncing out: only the rows are sure to be there, and a
   * committed layer may hold empty files. For those who can make their layers again.
   */
  durability?: 'full' | 'metadata';
  /**
   * What the seal of a committed layer covers: `metadata` (default) what a walk sees, which costs next to nothing, or
   * `content` also what the files hold and all their extended attributes, for which every byte is read.
   */
  seal?: 'metadata' | 'content';
  /**
   * When the directories of removed snapshots are deleted: `false` (default) before the promise resolves, `background`
   * afterwards, by itself, a few at a time, `true` only by `cleanup`.
   */
  asyncRemove?: boolean | 'background';
  /** More mount options for every overlay, in overlayfs's own syntax. */
  mountOptions?: readonly string[];
  /**
   * Turn the labels `containerd.io/snapshot/uidmapping` and `containerd.io/snapshot/gidmapping` into the mount
   * options `uidmap=` and `gidmap=` (default: false).
   */
  remapIds?: boolean;
  /** How long a write waits for other processes' locks, in milliseconds (default: 30,000). */
  busyTimeout?: number;
  /**
   * Copy the database to `backups/` while the store is open: when the newest copy is `every` milliseconds old (default: a
   * day), keeping `keep` of them (default: 3). `false` for never. A copy before each migration is made in any case.
   */
  backups?: { every?: number; keep?: number } | false;
  /** Called after each transaction with the number of writes that shared it. It must not throw. */
  onTransaction?: (writes: number) => void;
  /** Give the path of the layer in the label `containerd.io/snapshot/overlay.upperdir` (default: false). */
  upperdirLabel?: boolean;
}

/** The options of a driver after their check, with defaults filled in. */
export type Settings = ReturnType<typeof toSettings>;

/** The longest time that a timer takes, in milliseconds. */
const MAX_MS = 2 ** 31 - 1;

const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * Checks options and fills in defaults.
 *
 * @throws {TypeError} if one is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if one has a value that it cannot have
 */
// oxlint-disable-next-line typescript/explicit-module-boundary-types -- `Settings` is what this returns.
export function toSettings(given: DriverOptions | undefined) {
  return checkOptions(given, {
    durability: withDefault(oneOf('full', 'metadata'), 'full'),
    seal: withDefault(oneOf('metadata', 'content'), 'metadata'),
    asyncRemove: withDefault(toAsyncRemove, false),
    mountOptions: withDefault(strings(toMountOption), []),
    remapIds: withDefault(boolean, false),
    busyTimeout: withDefault(milliseconds(MAX_MS), DEFAULT_BUSY_TIMEOUT_MS),
    upperdirLabel: withDefault(boolean, false),
    backups: toBackups,
    onTransaction: optional(callback<(writes: number) => void>()),
  });
}

const toAsyncRemove: OptionCheck<boolean | 'background'> = (value, option) =>
  value === 'background' ? value : boolean(value, option);

function toMountOption(option: unknown): string {
  if (typeof option !== 'string') {
    throw wrongType(`a mount option must be a string, not ${kindOf(option)}`);
  }
  if (option === '' || option.includes('\0') || /(^|,)(lowerdir|upperdir|workdir|datadir)\b/.test(option)) {
    throw new SnapshotError('INVALID_ARGUMENT', `mount option ${quote(option)} is managed by overlite`);
  }
  // The database has to know what is volatile, or a commit after a crash would take what is left for whole.
  if (option.split(',').includes('volatile')) {
    throw new SnapshotError('INVALID_ARGUMENT', '"volatile" cannot be set for the whole store', {
      hint: 'prepare single snapshots with { volatile: true }',
    });
  }
  return option;
}

/** @returns `undefined` for no backups */
function toBackups(given: unknown): BackupSettings | undefined {
  if (given === false) return undefined;
  const least = (value: unknown, option: string): number => {
    if (typeof value !== 'number') {
      throw wrongType(`backups.${option} must be a number, not ${kindOf(value)}`);
    }
    if (value >= 1 && value <= MAX_MS && (option !== 'keep' || Number.isInteger(value))) return value;
    throw new SnapshotError('INVALID_ARGUMENT', `backups.${option} cannot be ${value}`);
  };
  return checkOptions(given, { every: withDefault(least, DAY_MS), keep: withDefault(least, 3) });
}

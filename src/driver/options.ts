import { SnapshotError } from '../errors.ts';
import { DEFAULT_BUSY_TIMEOUT_MS } from '../metadata/busy.ts';
import type { BackupSettings } from '../metadata/backup/rolling.ts';
import { checkOptions, kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';

/** How a driver is opened. */
export interface DriverOptions {
  /**
   * `full` (default): what a promise has resolved for is there after a power cut, directories and the contents of
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
   * When the directories of what is removed are deleted: before the promise resolves (`false`, unless given),
   * `background`: afterwards, by itself, a few at a time, or (`true`) only by `cleanup`.
   */
  asyncRemove?: boolean | 'background';
  /** More mount options for every overlay, in overlayfs's own syntax. */
  mountOptions?: readonly string[];
  /**
   * Turn the labels `containerd.io/snapshot/uidmapping` and `containerd.io/snapshot/gidmapping` into the mount
   * options `uidmap=` and `gidmap=`. Off unless given.
   */
  remapIds?: boolean;
  /** How long a write waits for other processes' locks, in milliseconds; 30,000 unless given. */
  busyTimeout?: number;
  /**
   * Copy the database to `backups/` by itself while the store is open: when the newest copy is `every` milliseconds old
   * (a day unless given), keeping `keep` of them (3 unless given); `false` for never. A copy before each migration is
   * made in any case.
   */
  backups?: { every?: number; keep?: number } | false;
  /** Told after each transaction how many writes shared it. It must not throw. */
  onTransaction?: (writes: number) => void;
  /** Tell the path of the layer in the label `containerd.io/snapshot/overlay.upperdir`. Off unless given. */
  upperdirLabel?: boolean;
}

/** The options with everything filled in. */
export type Settings = Readonly<Required<Omit<DriverOptions, 'backups' | 'onTransaction'>>> & {
  readonly backups: BackupSettings | undefined;
  readonly onTransaction: DriverOptions['onTransaction'];
};

function isBoolean(value: unknown, option: string): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${option} must be a boolean, not ${kindOf(value)}`);
  return value;
}

function isOneOf<T extends string>(value: T, option: string, choices: readonly T[]): T {
  if (typeof value !== 'string') throw new TypeError(`${option} must be a string, not ${kindOf(value)}`);
  if (choices.includes(value)) return value;
  const words = choices.map((choice) => `"${choice}"`).join(' or ');
  throw new SnapshotError('INVALID_ARGUMENT', `${option} is ${words}, not ${quote(value)}`);
}

/**
 * Checks options and fills in what was left out.
 *
 * @throws {TypeError} if one is of a wrong type or unknown
 * @throws {SnapshotError} INVALID_ARGUMENT if one has a value that it cannot have
 */
export function toSettings(given: DriverOptions | undefined): Settings {
  const options = checkOptions(given, [
    'durability',
    'seal',
    'asyncRemove',
    'mountOptions',
    'remapIds',
    'busyTimeout',
    'upperdirLabel',
    'backups',
    'onTransaction',
  ]);
  const {
    durability = 'full',
    seal = 'metadata',
    asyncRemove = false,
    mountOptions = [],
    remapIds = false,
    busyTimeout = DEFAULT_BUSY_TIMEOUT_MS,
    upperdirLabel = false,
    backups = {},
    onTransaction,
  } = options;
  if (typeof busyTimeout !== 'number')
    throw new TypeError(`busyTimeout must be a number, not ${kindOf(busyTimeout)}`);
  if (!(busyTimeout >= 0 && busyTimeout <= 2 ** 31 - 1)) {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `busyTimeout is not a number of milliseconds: ${busyTimeout}`,
    );
  }
  if (onTransaction !== undefined && typeof onTransaction !== 'function') {
    throw new TypeError(`onTransaction must be a function, not ${kindOf(onTransaction)}`);
  }
  return {
    durability: isOneOf(durability, 'durability', ['full', 'metadata']),
    seal: isOneOf(seal, 'seal', ['metadata', 'content']),
    asyncRemove: asyncRemove === 'background' ? asyncRemove : isBoolean(asyncRemove, 'asyncRemove'),
    mountOptions: toMountOptions(mountOptions),
    remapIds: isBoolean(remapIds, 'remapIds'),
    busyTimeout,
    upperdirLabel: isBoolean(upperdirLabel, 'upperdirLabel'),
    backups: toBackups(backups),
    onTransaction,
  };
}

function toMountOptions(options: readonly unknown[]): string[] {
  if (!Array.isArray(options)) throw new TypeError(`mountOptions must be an array, not ${kindOf(options)}`);
  return options.map((option: unknown) => {
    if (typeof option !== 'string')
      throw new TypeError(`a mount option must be a string, not ${kindOf(option)}`);
    if (option === '' || option.includes('\0') || /(^|,)(lowerdir|upperdir|workdir|datadir)\b/.test(option)) {
      throw new SnapshotError('INVALID_ARGUMENT', `mount option ${quote(option)} is not for you to set`);
    }
    // Of what is volatile the database has to know, or a commit after a crash would take what is left for whole.
    if (option.split(',').includes('volatile')) {
      throw new SnapshotError('INVALID_ARGUMENT', 'mount option "volatile" is not for all snapshots', {
        hint: 'prepare those that are to be so with { volatile: true }',
      });
    }
    return option;
  });
}

const DAY_MS = 24 * 60 * 60 * 1000;

function toBackups(given: NonNullable<DriverOptions['backups']>): BackupSettings | undefined {
  if (given === false) return undefined;
  const { every = DAY_MS, keep = 3 } = checkOptions(given, ['every', 'keep']);
  for (const [name, value] of Object.entries({ every, keep })) {
    if (typeof value !== 'number')
      throw new TypeError(`backups.${name} must be a number, not ${kindOf(value)}`);
    if (!(value >= 1 && value <= 2 ** 31 - 1) || (name === 'keep' && !Number.isInteger(value))) {
      throw new SnapshotError('INVALID_ARGUMENT', `backups.${name} cannot be ${value}`);
    }
  }
  return { every, keep };
}

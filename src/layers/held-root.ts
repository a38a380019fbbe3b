import { closeSync, fsyncSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { errnoOf, isGone } from '../linux/errno.ts';
import {
  createDirectory,
  openDirectory,
  openDirectoryBeneath,
  openDirectoryOrMount,
} from '../linux/file-calls.ts';
import { FileStatus, isDirectory } from '../linux/file-status.ts';
import { AT_FDCWD, cString } from '../linux/foreign.ts';
import { describeType } from '../linux/plain-file.ts';
import { pathIn } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import { Layout } from './layout.ts';

/** What to do if there is no room for layers on the filesystem of a root. */
export const MOVE_THE_ROOT =
  'let the whole root be on one filesystem: move it to the larger one, and give its new path or mount it at the old one with mount --bind';

/** A directory in a root that holds a part of the store. */
export type Part = 'snapshots' | 'backups' | 'lost+found';

/** @returns what `look` returns, or `undefined` if what it looks at is gone, or something is mounted over it */
export function unlessHidden<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    const cause = error instanceof SnapshotError ? error.cause : error;
    if (isGone(cause) || errnoOf(cause) === 'EXDEV') return undefined;
    throw error;
  }
}

/** Something in the place of a directory or a file of the store, which has to stay the same. */
interface Kept {
  readonly what: string;
  readonly name: Buffer;
  identity: Uint32Array | undefined;
}

/**
 * The directory of a root, held open, with those in it that hold the parts of the store. Everything in a store is
 * reached below these descriptors, and no symbolic link is followed: their paths can lead elsewhere later, if something
 * is mounted over the root, it is renamed, or a link takes the place of a directory.
 */
export class HeldRoot {
  /** The paths in the root, for people, for mount options and for SQLite. */
  readonly layout: Layout;
  /** `undefined` once it is closed: its number may be another file's then. */
  #fd: number | undefined;
  readonly #path: Buffer;
  readonly #status = new FileStatus();
  readonly #root: Uint32Array;
  readonly #parts = new Map<Part, number>();
  readonly #snapshots: Kept = kept('the directory of the snapshots', 'snapshots');
  readonly #files = [kept('the database', 'metadata.db'), kept('the log of the database', 'metadata.db-wal')];
  /** Why nothing may be written any more. */
  #lost: string | undefined;

  /** Opens a root by its absolute path, in which there are no symbolic links. */
  constructor(root: string) {
    this.layout = new Layout(root);
    this.#path = cString(root);
    this.#fd = openDirectory(this.#path);
    this.#status.readOpen(this.#fd);
    this.#root = this.#status.identity;
  }

  /** A descriptor of the root. @throws {SnapshotError} FAILED_PRECONDITION if it is closed, as everything else does */
  get fd(): number {
    if (this.#fd === undefined) throw new SnapshotError('FAILED_PRECONDITION', 'the store is closed');
    return this.#fd;
  }

  /**
   * Checks that the path still leads to the directory and to that of the snapshots, and that the database in it is still
   * the file that is open. The first call after the database was opened notes which files those are. Takes a few
   * microseconds.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if not; from then on at every call, even if the path leads back
   */
  check(): void {
    this.checkPlace();
    this.#lost ??= this.#findLoss(this.#files);
    this.#throwLoss();
  }

  /** The same, without the files of the database: for those who do not have them open all the time. */
  checkPlace(): void {
    this.#lost ??= this.#findMove();
    this.#throwLoss();
  }

  /**
   * A descriptor of `snapshots/`, which is opened once.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if it is missing, a symbolic link or not a directory
   */
  get snapshots(): number {
    return this.#parts.get('snapshots') ?? this.#hold('snapshots');
  }

  /** Whether there is a directory for a part of the store. */
  has(part: Part): boolean {
    return (
      this.#parts.has(part) || (this.#status.read(this.fd, cString(part)) && isDirectory(this.#status.mode))
    );
  }

  /**
   * A descriptor of the directory of a part of the store. It is made if it is missing, and opened once.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if it is a symbolic link or not a directory
   */
  make(part: Part): number {
    const held = this.#parts.get(part);
    if (held !== undefined) return held;
    try {
      createDirectory(this.fd, cString(part), 0o700);
      fsyncSync(this.fd);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    return this.#hold(part);
  }

  /**
   * Opens the directory of a snapshot, or one in it.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if something is mounted on it
   * @throws a system error, for which `isGone` holds if it is missing, a symbolic link or not a directory
   */
  open(id: number, inside?: 'fs' | 'work'): number {
    const path = inside === undefined ? String(id) : `${id}/${inside}`;
    try {
      return openDirectoryBeneath(this.snapshots, cString(path));
    } catch (error) {
      if (errnoOf(error) !== 'EXDEV') throw error;
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `something is mounted on ${quote(join(this.layout.snapshots, path))}`,
        { cause: error },
      );
    }
  }

  /** Runs `body` with the directory of a snapshot, or one in it, open. @throws as `open` */
  with<T>(id: number, inside: 'fs' | 'work' | undefined, body: (fd: number) => T): T {
    const fd = this.open(id, inside);
    try {
      return body(fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Whether a file is the database or its log, as `check` has found them first. */
  isOfDatabase(status: FileStatus): boolean {
    return this.#files.some(({ identity }) => identity !== undefined && status.is(identity));
  }

  close(): void {
    for (const fd of this.#parts.values()) closeSync(fd);
    this.#parts.clear();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #hold(part: Part): number {
    const name = cString(part);
    let fd: number;
    try {
      fd = openDirectoryOrMount(this.fd, name);
    } catch (error) {
      if (!isGone(error)) throw error;
      throw this.#notADirectory(part, error);
    }
    this.#parts.set(part, fd);
    if (part === 'snapshots') {
      this.#status.readOpen(fd);
      this.#snapshots.identity = this.#status.identity;
    }
    return fd;
  }

  #notADirectory(part: Part, cause: unknown): SnapshotError {
    const found = lstatSync(pathIn(this.fd, Buffer.from(part)), { throwIfNoEntry: false });
    const how = found === undefined ? 'is missing' : `is ${describeType(found)}, not a directory`;
    return new SnapshotError('FAILED_PRECONDITION', `${quote(join(this.layout.root, part))} ${how}`, {
      cause,
      hint: part === 'snapshots' && found?.isSymbolicLink() === true ? MOVE_THE_ROOT : 'run overlite check',
    });
  }

  #throwLoss(): void {
    if (this.#lost === undefined) return;
    throw new SnapshotError('FAILED_PRECONDITION', this.#lost, {
      hint: 'close the driver and open it again, once the root is in its place',
    });
  }

  #findMove(): string | undefined {
    if (!this.#leadsTo(AT_FDCWD, this.#path) || !this.#status.is(this.#root)) {
      return `the root ${quote(this.layout.root)} is not the directory any more that was opened`;
    }
    return this.#snapshots.identity === undefined ? undefined : this.#findLoss([this.#snapshots]);
  }

  #findLoss(all: readonly Kept[]): string | undefined {
    for (const one of all) {
      const found = this.#leadsTo(this.fd, one.name);
      if (found) one.identity ??= this.#status.identity;
      if (one.identity === undefined || (found && this.#status.is(one.identity))) continue;
      const type = one === this.#snapshots ? 'directory' : 'file';
      return `${one.what} in ${quote(this.layout.root)} is not the ${type} any more that was opened`;
    }
    return undefined;
  }

  /** Reads the status of the file at a path. @returns whether there is one */
  #leadsTo(directory: number, path: Buffer): boolean {
    try {
      return this.#status.read(directory, path);
    } catch (error) {
      if (isGone(error)) return false;
      throw toSnapshotError(error, `looking for ${quote(this.layout.root)}`);
    }
  }
}

function kept(what: string, name: string): Kept {
  return { what, name: cString(name), identity: undefined };
}

import { closeSync, constants, openSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { isGone } from '../linux/errno.ts';
import { AT_FDCWD, O_PATH, cString } from '../linux/foreign.ts';
import { FileStatus } from '../linux/file-status.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import { Layout } from './layout.ts';

/**
 * The directory of a root, held open, and the identity of the database files in it. The path of a root can lead
 * elsewhere later: if a filesystem is mounted over it, the root is renamed, or the database is replaced by `mv`.
 */
export class HeldRoot {
  /** The paths in the root by way of its descriptor: they lead to this directory wherever it is. */
  readonly layout: Layout;
  readonly #fd: number;
  readonly #path: Buffer;
  readonly #status = new FileStatus();
  readonly #root: Uint32Array;
  /** The files that have to stay the same, by their names in the root. */
  readonly #files: readonly {
    readonly what: string;
    readonly name: Buffer;
    identity: Uint32Array | undefined;
  }[];
  /** Why nothing may be written any more. */
  #lost: string | undefined;

  private constructor(root: string, fd: number) {
    this.layout = new Layout(fdPath(fd), root);
    this.#fd = fd;
    this.#path = cString(root);
    this.#status.readOpen(fd);
    this.#root = this.#status.identity;
    this.#files = [
      { what: 'the database', name: cString('metadata.db'), identity: undefined },
      { what: 'the log of the database', name: cString('metadata.db-wal'), identity: undefined },
    ];
  }

  /** Opens a root by its absolute path. */
  static open(root: string): HeldRoot {
    return new HeldRoot(root, openSync(root, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW));
  }

  /** A descriptor of the root, with O_PATH. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Checks that the path still leads to the directory, and that the database in it is still the file that is open. The
   * first call after the database was opened notes which files those are. Takes a few microseconds.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if not; from then on at every call, even if the path leads back
   */
  check(): void {
    this.#lost ??= this.#findLoss();
    if (this.#lost === undefined) return;
    throw new SnapshotError('FAILED_PRECONDITION', this.#lost, {
      hint: 'close the driver and open it again, once the root is in its place',
    });
  }

  close(): void {
    closeSync(this.#fd);
  }

  #findLoss(): string | undefined {
    const root = this.layout.show(this.layout.root);
    if (!this.#leadsTo(AT_FDCWD, this.#path) || !this.#status.is(this.#root)) {
      return `the root ${quote(root)} is not the directory any more that was opened`;
    }
    for (const file of this.#files) {
      const found = this.#leadsTo(this.#fd, file.name);
      if (found) file.identity ??= this.#status.identity;
      if (file.identity === undefined || (found && this.#status.is(file.identity))) continue;
      return `${file.what} in ${quote(root)} is not the file any more that was opened`;
    }
    return undefined;
  }

  /** Reads the status of the file at a path. @returns whether there is one */
  #leadsTo(directory: number, path: Buffer): boolean {
    try {
      return this.#status.read(directory, path);
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  }
}

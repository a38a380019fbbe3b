import { constants } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { errnoOf } from './errno.ts';
import { cString, littleEndian } from './foreign.ts';
import { readStatus } from './file-calls.ts';

const unnamed = cString('');
const STATX_ATTR_MOUNT_ROOT = 0x2000;

/** Where the inode, of 64 bits, and the major and minor number of the device are in the result of statx(2). */
const IDENTITY_OFFSETS = [32, 36, 136, 140];

/** The result of statx(2) for a file; a symbolic link is not followed. Each read fills in the same object again. */
export class FileStatus {
  readonly #result = Buffer.alloc(256);
  readonly #view = new DataView(this.#result.buffer, this.#result.byteOffset, 256);
  /** The parts of `version`, which each read fills in again too. */
  readonly versionParts: readonly Buffer[] = [this.#result.subarray(32, 48), this.#result.subarray(96, 108)];

  /** Reads the status of a file in an open directory, by its name with a NUL at the end. @returns whether it exists */
  read(dir: number, name: Buffer): boolean {
    try {
      readStatus(dir, name, this.#result);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** Reads the status of an open file. */
  readOpen(fd: number): void {
    readStatus(fd, unnamed, this.#result);
  }

  /** A field of 64 bits; exact up to 2^53. */
  #number(offset: number): number {
    const high = this.#view.getUint32(littleEndian ? offset + 4 : offset, littleEndian);
    const low = this.#view.getUint32(littleEndian ? offset : offset + 4, littleEndian);
    return high * 2 ** 32 + low;
  }

  #latin1(from: number, to: number): string {
    return this.#result.toString('latin1', from, to);
  }

  /** Whether it is the root of a mount. */
  get isMountRoot(): boolean {
    return (this.attributes & STATX_ATTR_MOUNT_ROOT) !== 0;
  }
  /** Attributes such as that it is immutable: of the flags of chattr(1), those that have the same values there. */
  get attributes(): number {
    return this.#view.getUint32(littleEndian ? 8 : 12, littleEndian);
  }
  get links(): number {
    return this.#view.getUint32(16, littleEndian);
  }
  get uid(): number {
    return this.#view.getUint32(20, littleEndian);
  }
  get gid(): number {
    return this.#view.getUint32(24, littleEndian);
  }
  /** Type and permissions. */
  get mode(): number {
    return this.#view.getUint16(28, littleEndian);
  }
  /** Identifies the file as long as it exists: its inode number and device. */
  get identity(): Uint32Array {
    return Uint32Array.from(IDENTITY_OFFSETS, (offset) => this.#view.getUint32(offset));
  }
  /** The identity as a text, for a key. */
  get identityKey(): string {
    return this.identity.join(' ');
  }
  /** The device, the inode and the time of creation, as far as the filesystem knows it, as a text for a key. */
  get birthKey(): string {
    return this.#latin1(136, 144) + this.#latin1(32, 40) + this.#latin1(80, 92);
  }
  /** The device as a text, for a key. */
  get deviceKey(): string {
    return `${this.#view.getUint32(136)} ${this.#view.getUint32(140)}`;
  }
  /** The mount that it was reached by, as in mountinfo. */
  get mountId(): number {
    return this.#number(144);
  }
  /** Whether this is the file with that identity. */
  is(identity: Uint32Array): boolean {
    for (let part = 0; part < IDENTITY_OFFSETS.length; part += 1) {
      if (identity[part] !== this.#view.getUint32(IDENTITY_OFFSETS[part] ?? 0)) return false;
    }
    return true;
  }
  /** Whether the other one is of the same file. */
  isSameAs(other: FileStatus): boolean {
    for (const offset of IDENTITY_OFFSETS) {
      if (this.#view.getUint32(offset) !== other.#view.getUint32(offset)) return false;
    }
    return true;
  }
  get inode(): bigint {
    return this.#view.getBigUint64(32, littleEndian);
  }
  /** In bytes. @throws {SnapshotError} UNIMPLEMENTED if that is more than 2^53 - 1, up to which numbers are exact */
  get size(): number {
    const size = this.#number(40);
    if (size <= Number.MAX_SAFE_INTEGER) return size;
    throw new SnapshotError(
      'UNIMPLEMENTED',
      `a file of ${this.#view.getBigUint64(40, littleEndian)} bytes is too large`,
      {
        hint: 'look for it with: find -size +8388607G',
      },
    );
  }
  /** The space that it takes, in blocks of 512 bytes. */
  get blocks(): number {
    return this.#number(48);
  }
  /** The second since the epoch in which the contents last changed. */
  get modifiedSecond(): number {
    const high = this.#view.getInt32(littleEndian ? 116 : 112, littleEndian);
    return high * 2 ** 32 + this.#view.getUint32(littleEndian ? 112 : 116, littleEndian);
  }
  /** When the contents last changed, as seconds and nanoseconds since the epoch with a dot between them. */
  get modified(): string {
    return `${this.modifiedSecond}.${this.#view.getUint32(120, littleEndian)}`;
  }
  /** Major and minor number of a device node. */
  get device(): { major: number; minor: number } {
    return { major: this.#view.getUint32(128, littleEndian), minor: this.#view.getUint32(132, littleEndian) };
  }
  /** The times of access and modification, as utimensat(2) takes them. */
  get times(): Buffer {
    const times = Buffer.alloc(32);
    this.#result.copy(times, 0, 64, 76);
    this.#result.copy(times, 16, 112, 124);
    return times;
  }
  /** The inode number, the size and the time of the last change of status: some bytes differ after any change. */
  get version(): Buffer {
    return Buffer.concat(this.versionParts);
  }
}

/** Whether the mode is that of a directory. */
export function isDirectory(mode: number): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFDIR;
}

/** Whether the mode is that of a regular file. */
export function isRegular(mode: number): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFREG;
}

/** Whether a file is an overlayfs whiteout, which stands for a deleted file. */
export function isWhiteout({ mode, device }: Pick<FileStatus, 'mode' | 'device'>): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFCHR && device.major === 0 && device.minor === 0;
}

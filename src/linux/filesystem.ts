import { existsSync, readFileSync, readdirSync, readlinkSync, statSync, statfsSync } from 'node:fs';
import { basename } from 'node:path';

/**
 * Filesystems that a store cannot be on, by the magic number of statfs(2). Those that other machines can write to, or
 * that a daemon serves, do not give the shared memory that SQLite's WAL needs. An overlay cannot be the upper layer of
 * another one.
 */
const unusable: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB2'],
  [0x01021997, '9p'],
  [0x5346414f, 'AFS'],
  [0x6b414653, 'AFS'],
  [0x00c36400, 'Ceph'],
  [0x65735546, 'FUSE'],
  [0x794c7630, 'overlayfs'],
  [0x0bd00bd0, 'Lustre'],
  [0x47504653, 'GPFS'],
  [0x19830326, 'BeeGFS'],
  [0x20030528, 'OrangeFS'],
  [0x01161970, 'GFS2'],
  [0x7461636f, 'OCFS2'],
  [0x73757245, 'Coda'],
  [0x786f4256, 'vboxsf'],
  [0xbacbacbc, 'vmhgfs'],
]);

const EXT = 0xef53;
const XFS = 0x58465342;
/** The magic number of btrfs, as statfs(2) gives it. */
export const BTRFS = 0x9123683e;

/** What the filesystem of a directory is like. */
export interface Filesystem {
  /** Its name, if a store cannot be on it. */
  readonly unusable: string | undefined;
  /**
   * Whether it has an ordered journal: the fsync of a directory makes all directories durable that were made before.
   */
  readonly ordered: boolean;
  /** Whether overwriting data takes new space. */
  readonly copiesOnWrite: boolean;
}

/** The properties of the filesystem of a directory. */
export function filesystemOf(path: string): Filesystem {
  const magic = statfsSync(path).type >>> 0;
  const ordered = magic === XFS || (magic === EXT && hasJournal(path));
  return { unusable: unusable.get(magic), ordered, copiesOnWrite: magic === BTRFS };
}

/** Whether an ext filesystem has a journal; the kernel lists journals by their devices. */
function hasJournal(path: string): boolean {
  const { dev } = statSync(path, { bigint: true });
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  try {
    const device = basename(readlinkSync(`/sys/dev/block/${major}:${minor}`));
    return readdirSync('/proc/fs/jbd2').some((journal) => journal.startsWith(`${device}-`));
  } catch {
    // If that cannot be read, it is better to sync too much.
    return false;
  }
}

/** Whether overlayfs on this kernel has the option `index`. */
export function overlayKnowsIndex(): boolean {
  return existsSync('/sys/module/overlay/parameters/index');
}

/**
 * Whether this process is in a user namespace other than the first, where overlayfs cannot use `trusted.` attributes.
 */
export function inUserNamespace(): boolean {
  return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));
}

/** The number by which a user namespace shows every user that it has no number for. */
export function overflowUid(): number {
  return Number(readFileSync('/proc/sys/kernel/overflowuid', 'utf8'));
}

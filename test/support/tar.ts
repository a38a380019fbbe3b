import { randomBytes } from 'node:crypto';
import { pack } from 'tar-stream';

/** A member of a tar archive. What is left out is an empty regular file of root, of the first second of 2020. */
export interface TarEntry {
  /** Bytes where the name is not UTF-8; such a name has at most 100 of them. */
  readonly path: string | Buffer;
  readonly type?: 'file' | 'link' | 'symlink' | 'directory' | 'fifo' | 'character-device' | 'block-device';
  /** 0755 for directories and 0644 for all else, if it is not given. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch; decimal text where that is no whole number from 0 to 2^31 - 1. */
  readonly mtime?: number | string;
  readonly content?: string | Buffer;
  /** What a hard or symbolic link leads to. */
  readonly target?: string | Buffer;
  /** Major and minor number of a device. */
  readonly device?: readonly [number, number];
  readonly xattrs?: Readonly<Record<string, string | Buffer>>;
}

const BLOCK = 512;

/** Writes an archive in the POSIX format of 2001 (pax), in which attributes and long names can be told. */
export function tar(entries: Iterable<TarEntry>): Buffer {
  return Buffer.concat([...Array.from(entries, member), Buffer.alloc(2 * BLOCK)]);
}

function member(entry: TarEntry): Buffer {
  const { type = 'file', path, target = '', device = [0, 0], mtime = 1_577_836_800 } = entry;
  const { mode = type === 'directory' ? 0o755 : 0o644, uid = 0, gid = 0, content = '', xattrs = {} } = entry;
  // tar-stream writes only text: bytes take the place of a text of their length in what it has written.
  const standIns = new Map<string, Buffer>();
  const toText = (value: string | Buffer): string => {
    if (typeof value === 'string') return value;
    const standIn = randomBytes(value.length).toString('hex').slice(0, value.length);
    standIns.set(standIn, value);
    return standIn;
  };
  const records = Object.fromEntries([
    ...Object.entries(xattrs).map(([name, value]) => [`SCHILY.xattr.${name}`, toText(value)]),
    ...(typeof mtime === 'string' ? [['mtime', mtime]] : []),
    ...Object.entries({ uid, gid }).filter(([, id]) => id > 0o777777),
  ]);
  const archive = pack();
  archive.entry(
    {
      name: toText(path),
      type,
      // With a bit that does not go into the archive: tar-stream takes 0 for a mode that was left out.
      mode: mode | 0o100000,
      uid,
      gid,
      mtime: new Date(typeof mtime === 'string' ? 0 : mtime * 1000),
      ...(target !== '' && { linkname: toText(target) }),
      devmajor: device[0],
      devminor: device[1],
      ...(Object.keys(records).length > 0 && { pax: records }),
    },
    Buffer.from(content),
  );
  archive.finalize();
  const bytes: Buffer = archive.read().subarray(0, -2 * BLOCK);
  for (const [standIn, value] of standIns) value.copy(bytes, bytes.indexOf(standIn));
  if (standIns.size > 0) setChecksum(bytes.subarray(0, BLOCK));
  return bytes;
}

function setChecksum(header: Buffer): void {
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0`, 148);
}

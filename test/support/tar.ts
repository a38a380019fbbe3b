/** A member of a tar archive. What is left out is an empty regular file of root, of the first second of 2020. */
export interface TarEntry {
  /** Bytes where the name is not UTF-8; such a name has at most 100 of them. */
  readonly path: string | Buffer;
  readonly type?: keyof typeof typeFlags;
  /** 0755 for directories and 0644 for all else, if it is not given. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch, as decimal text where there are fractions. */
  readonly mtime?: number | string;
  readonly content?: string | Buffer;
  /** What a hard or symbolic link leads to. */
  readonly target?: string | Buffer;
  /** Major and minor number of a device. */
  readonly device?: readonly [number, number];
  readonly xattrs?: Readonly<Record<string, string | Buffer>>;
}

const BLOCK = 512;
const typeFlags = {
  file: '0',
  link: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
  extended: 'x',
} as const;

/** Writes an archive in the POSIX format of 2001 (pax), in which attributes and long names can be told. */
export function tar(entries: Iterable<TarEntry>): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) {
    const records = extendedRecords(entry);
    if (records.length > 0) parts.push(...member({ path: 'pax', type: 'extended' }, records));
    parts.push(...member(entry, Buffer.from(entry.content ?? '')));
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

/** What the fixed header of an entry has no room for. */
function extendedRecords(entry: TarEntry): Buffer {
  const records: Buffer[] = [];
  const add = (key: string, value: string | Buffer): void =>
    void records.push(record(key, Buffer.from(value)));
  if (typeof entry.path === 'string' && !fits(entry.path)) add('path', entry.path);
  if (typeof entry.target === 'string' && !fits(entry.target)) add('linkpath', entry.target);
  if (!fitsNumber(entry.mtime ?? 0)) add('mtime', String(entry.mtime));
  for (const id of ['uid', 'gid'] as const) if ((entry[id] ?? 0) > 0o7777777) add(id, String(entry[id]));
  for (const [name, value] of Object.entries(entry.xattrs ?? {})) add(`SCHILY.xattr.${name}`, value);
  return Buffer.concat(records);
}

const fits = (text: string): boolean => text.length <= 100 && Buffer.byteLength(text) === text.length;

const fitsNumber = (seconds: number | string): boolean => Number.isInteger(seconds) && Number(seconds) >= 0;

/** A record begins with its own length in bytes, the digits of that length included. */
function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function member(entry: TarEntry, content: Buffer): Buffer[] {
  const { type = 'file', path, target = '', device = [0, 0], mtime = 1_577_836_800 } = entry;
  const mode = entry.mode ?? (type === 'directory' ? 0o755 : 0o644);
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number): void =>
    void header.write(value.toString(8).padStart(digits, '0'), at);
  Buffer.from(path).copy(header, 0, 0, 100);
  octal(mode, 100, 7);
  octal(Math.min(entry.uid ?? 0, 0o7777777), 108, 7);
  octal(Math.min(entry.gid ?? 0, 0o7777777), 116, 7);
  octal(content.length, 124, 11);
  octal(fitsNumber(mtime) ? Number(mtime) : 0, 136, 11);
  header.write(' '.repeat(8), 148);
  header.write(typeFlags[type], 156);
  Buffer.from(target).copy(header, 157, 0, 100);
  header.write('ustar\u000000', 257);
  octal(device[0], 329, 7);
  octal(device[1], 337, 7);
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  );
  header.write('\0 ', 154);
  return [header, content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)];
}

import { closeSync, fstatSync, openSync, readSync, readdirSync, readlinkSync, statSync } from 'node:fs';
import { hasChanged, userNamespaceOf } from './file-calls.ts';
import { read } from './fs-promises.ts';
import { inSlices } from './slices.ts';

/** The mounts of one mount namespace, as a text that has one character for each byte of mountinfo. See proc(5). */
export interface MountTable {
  /** A process in the namespace; `undefined` if it is the namespace of this process. */
  readonly process: number | undefined;
  readonly text: string;
}

/** A line of a table. */
export interface MountEntry {
  readonly id: number;
  /** The id of the mount that it is mounted on. */
  readonly parentId: number;
  /** Major and minor number of the filesystem's device. */
  readonly device: string;
  /** The directory of that filesystem that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly type: string;
  /** The directories of an overlay as they were given to it: a path may be relative. */
  readonly layers: readonly string[];
}

/** How many bytes of a table are read on this thread, which takes about a millisecond. The rest is read on another. */
const READ_HERE = 128 * 1024;

/** How many bytes are read at a time. */
const PART = 64 * 1024;

/** Replaces the octal escapes of mountinfo, which stand for spaces, commas and the like. */
function unescape(text: string): string {
  return text.includes('\\')
    ? text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
    : text;
}

/** The beginning of a line. Taking only that apart is ten times as fast. */
export interface MountHead extends Pick<MountEntry, 'id' | 'parentId' | 'device'> {
  readonly isOverlay: boolean;
}

/** Takes the beginning of a line apart. */
export function parseHead(line: string): MountHead {
  const first = line.indexOf(' ');
  const second = line.indexOf(' ', first + 1);
  return {
    id: Number(line.slice(0, first)),
    parentId: Number(line.slice(first + 1, second)),
    device: line.slice(second + 1, line.indexOf(' ', second + 1)),
    // A space in a field is escaped.
    isOverlay: line.includes(' - overlay '),
  };
}

/** The mount point in a line. */
export function mountPointOf(line: string): string {
  return toText(line.split(' ', 5)[4] ?? '');
}

/** Takes a line apart. */
export function parseLine(line: string): MountEntry | undefined {
  const fields = line.split(' ');
  const separator = fields.indexOf('-', 6);
  const [id, parentId, device, root, mountPoint] = fields;
  if (separator < 0 || device === undefined || root === undefined || mountPoint === undefined)
    return undefined;
  const type = fields[separator + 1] ?? '';
  return {
    id: Number(id),
    parentId: Number(parentId),
    device,
    root: toText(root),
    mountPoint: toText(mountPoint),
    type,
    layers: type === 'overlay' ? overlayDirectories(fields.slice(separator + 3).join(' ')) : [],
  };
}

function toText(field: string): string {
  return Buffer.from(unescape(field), 'latin1').toString();
}

/** The directories in the options of an overlay, which are as they stand in mountinfo. */
function overlayDirectories(options: string): string[] {
  const withoutBackslashes = (text: string): string => text.replace(/\\(.)/gs, '$1');
  return options
    .split(',')
    .flatMap((option) => {
      const [key = '', ...parts] = option.split('=');
      const value = unescape(parts.join('='));
      switch (key) {
        case 'lowerdir':
          return (value.match(/(?:\\.|[^:\\])+/gs) ?? []).map(withoutBackslashes);
        case 'lowerdir+':
        case 'datadir+':
          return [value];
        case 'upperdir':
        case 'workdir':
          // A backslash escapes if the option was given as a string, but not if it was given as a descriptor.
          return value.includes('\\') ? [value, withoutBackslashes(value)] : [value];
        default:
          return [];
      }
    })
    .map((path) => Buffer.from(path, 'latin1').toString());
}

/** The lines of a table. */
export function* linesOf({ text }: MountTable): Generator<string, void, undefined> {
  for (let start = 0, end = text.indexOf('\n'); end >= 0; start = end + 1, end = text.indexOf('\n', start)) {
    yield text.slice(start, end);
  }
}

/** The mount with an id. */
export function findMount(table: MountTable, id: number): MountEntry | undefined {
  for (const line of linesOf(table)) {
    if (line.startsWith(`${id} `)) return parseLine(line);
  }
  return undefined;
}

/** How many lines are looked at before a search yields. */
const LINES_AT_ONCE = 1000;

/** The longest table that is searched without interruption, in bytes. */
const SHORT_TABLE = LINES_AT_ONCE * 100;

/** Calls `look` for each line of a table. Yields to give an opportunity to end a slice. */
export function* eachLine(
  table: MountTable,
  look: (line: string) => void,
): Generator<undefined, void, undefined> {
  let count = 0;
  for (const line of linesOf(table)) {
    if ((count += 1) % LINES_AT_ONCE === 0) yield undefined;
    look(line);
  }
}

/** Takes all steps of a search through a table, in slices if the table is long. */
export async function searchThrough({ text }: MountTable, steps: Iterable<undefined>): Promise<void> {
  if (text.length > SHORT_TABLE) {
    await inSlices(steps, () => {});
    return;
  }
  for (const _ of steps) continue;
}

/** The table of this process. The file stays open, since poll(2) then says whether the table has changed. */
class OwnTable {
  readonly #fd = openSync('/proc/self/mountinfo', 'r');
  #changes = 0;
  #last: { readonly changes: number; readonly table: MountTable } | undefined;
  #reading: { readonly changes: number; readonly table: Promise<MountTable> } | undefined;

  /** How often it has changed. A change while it is read is noticed the next time. */
  get changes(): number {
    if (hasChanged(this.#fd)) this.#changes += 1;
    return this.#changes;
  }

  readNow(): MountTable {
    const { changes } = this;
    if (this.#last?.changes === changes) return this.#last.table;
    const parts: Buffer[] = [];
    readHere(this.#fd, parts, Infinity);
    return this.#keep(changes, { process: undefined, text: textOf(parts) });
  }

  async read(): Promise<MountTable> {
    const { changes } = this;
    if (this.#last?.changes === changes) return this.#last.table;
    if (this.#reading?.changes !== changes) this.#reading = { changes, table: this.#read(changes) };
    return this.#reading.table;
  }

  async #read(changes: number): Promise<MountTable> {
    try {
      return this.#keep(changes, { process: undefined, text: await readAll(this.#fd) });
    } finally {
      // The next call reads it again if this one has failed.
      if (this.#reading?.changes === changes) this.#reading = undefined;
    }
  }

  #keep(changes: number, table: MountTable): MountTable {
    this.#last = { changes, table };
    return table;
  }
}

let own: OwnTable | undefined;

/** How often the mounts of this process's namespace have changed since they were first asked for. Takes 2 us. */
export function ownMountChanges(): number {
  return (own ??= new OwnTable()).changes;
}

/** Reads the mounts of this process's namespace, again only if they have changed. */
export function readOwnMountsNow(): MountTable {
  return (own ??= new OwnTable()).readNow();
}

/** The same as `readOwnMountsNow`, but reads a long table on another thread. */
export function readOwnMounts(): Promise<MountTable> {
  return (own ??= new OwnTable()).read();
}

/**
 * Reads the mounts of the namespaces of all other processes, as far as this process may read them. Left out are
 * namespaces in which no process runs, and those that belong to another user namespace below this one: any user can
 * make one of these and mount in it what they like.
 */
export async function readOtherMounts(): Promise<MountTable[]> {
  const seen = new Set([readlinkSync('/proc/self/ns/mnt')]);
  const tables: MountTable[] = [];
  const add = async (process: number, namespace: string): Promise<void> => {
    try {
      if (isTrusted(process)) tables.push({ process, text: await readTable(process) });
      seen.add(namespace);
    } catch {
      // The process has ended, or this one may not read its mounts. Another one may be in the same namespace.
    }
  };
  await inSlices(readdirSync('/proc'), (name) => {
    const namespace = /^\d+$/.test(name) ? namespaceOf(name) : undefined;
    return namespace === undefined || seen.has(namespace) ? undefined : add(Number(name), namespace);
  });
  return tables;
}

/** The mount namespace of a process; `undefined` if it has ended, or this one may not ask. */
function namespaceOf(process: string): string | undefined {
  try {
    return readlinkSync(`/proc/${process}/ns/mnt`);
  } catch {
    return undefined;
  }
}

/** Reads the mounts of all namespaces: that of this process first. */
export async function readAllMounts(): Promise<MountTable[]> {
  return [await readOwnMounts(), ...(await readOtherMounts())];
}

/** Whether the mount namespace of a process belongs to this user namespace, or to one above it. */
function isTrusted(process: number): boolean {
  const namespace = openSync(`/proc/${process}/ns/mnt`, 'r');
  try {
    const owner = userNamespaceOf(namespace);
    if (owner === undefined) return true;
    try {
      return fstatSync(owner).ino === statSync('/proc/self/ns/user').ino;
    } finally {
      closeSync(owner);
    }
  } finally {
    closeSync(namespace);
  }
}

async function readTable(process: number): Promise<string> {
  const fd = openSync(`/proc/${process}/mountinfo`, 'r');
  try {
    return await readAll(fd);
  } finally {
    closeSync(fd);
  }
}

/** Reads an open file of /proc, whose size is unknown, from its beginning. */
async function readAll(fd: number): Promise<string> {
  const parts: Buffer[] = [];
  for (let at = readHere(fd, parts, READ_HERE); at !== undefined;) {
    const part = Buffer.allocUnsafe(PART);
    const { bytesRead } = await read(fd, part, 0, PART, at);
    if (bytesRead === 0) break;
    parts.push(part.subarray(0, bytesRead));
    at += bytesRead;
  }
  return textOf(parts);
}

/** Reads up to about `limit` bytes on this thread. @returns how far it came, or `undefined` if that was the end */
function readHere(fd: number, parts: Buffer[], limit: number): number | undefined {
  for (let at = 0; ; at += parts.at(-1)?.length ?? 0) {
    if (at >= limit) return at;
    const part = Buffer.allocUnsafe(PART);
    const length = readSync(fd, part, 0, PART, at);
    if (length === 0) return undefined;
    parts.push(part.subarray(0, length));
  }
}

function textOf(parts: readonly Buffer[]): string {
  return Buffer.concat(parts).toString('latin1');
}

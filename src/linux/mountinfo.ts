import { openSync, readFileSync, readSync, readdirSync, readlinkSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { hasChanged } from './file-calls.ts';

/** A line of mountinfo: see proc(5). */
export interface MountEntry {
  /** Major and minor number of the filesystem's device. */
  readonly device: string;
  /** The directory of that filesystem that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly type: string;
  /** The directories of an overlay as they were given to it: a path may be relative to an unknown directory. */
  readonly layers: readonly string[];
}

/** The mounts of one mount namespace. */
export interface NamespaceMounts {
  /** Whether it is the namespace of this process: only then are mount points paths that it can use. */
  readonly own: boolean;
  readonly entries: readonly MountEntry[];
}

/** Replaces the octal escapes of mountinfo, which stand for spaces, commas and the like. */
function unescape(text: string): string {
  return text.includes('\\')
    ? text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)))
    : text;
}

function parse(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const separator = fields.indexOf('-', 6);
    const [, , device, root, mountPoint] = fields;
    if (separator < 0 || device === undefined || root === undefined || mountPoint === undefined) continue;
    const type = fields[separator + 1] ?? '';
    const options = type === 'overlay' ? fields.slice(separator + 3).join(' ') : '';
    entries.push({
      device,
      root: unescape(root),
      mountPoint: unescape(mountPoint),
      type,
      layers: overlayDirectories(options),
    });
  }
  return entries;
}

/** The mounts of this process. The file stays open, since poll(2) then says whether it has changed. */
let table: { readonly fd: number; mounts: NamespaceMounts | undefined } | undefined;

/** The mounts of this process's namespace, read again only if they have changed. */
export function readOwnMountsNow(): NamespaceMounts {
  table ??= { fd: openSync('/proc/self/mountinfo', 'r'), mounts: undefined };
  // Asked first: a change while it is read is noticed the next time.
  if (hasChanged(table.fd) || table.mounts === undefined) {
    table.mounts = { own: true, entries: parse(readAll(table.fd)) };
  }
  return table.mounts;
}

/** Reads an open file of /proc, whose size is unknown, from its beginning. */
function readAll(fd: number): string {
  const parts: Buffer[] = [];
  for (let at = 0; ; at += parts.at(-1)?.length ?? 0) {
    const part = Buffer.allocUnsafe(65_536);
    const length = readSync(fd, part, 0, part.length, at);
    if (length === 0) return Buffer.concat(parts).toString();
    parts.push(part.subarray(0, length));
  }
}

/**
 * The mounts of this process's namespace and of those of all other processes that can be seen. A namespace without such
 * a process, or one that this process may not read, is left out.
 */
function readAllMountsNow(): NamespaceMounts[] {
  const seen = new Set([readlinkSync('/proc/self/ns/mnt')]);
  const all = [readOwnMountsNow()];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
      if (seen.has(namespace)) continue;
      all.push({ own: false, entries: parse(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')) });
      seen.add(namespace);
    } catch {
      // The process has ended, or this one may not read its mounts.
    }
  }
  return all;
}

/** Makes all calls within one turn of the event loop share a result, which is read after the last of them. */
function shared<T>(read: () => T): () => Promise<T> {
  let next: Promise<T> | undefined;
  const after = async (): Promise<T> => {
    await nextTurn();
    next = undefined;
    return read();
  };
  return () => (next ??= after());
}

/** Reads the mounts of this process's namespace. */
export const readOwnMounts = shared(readOwnMountsNow);

/** Reads the mounts of every namespace that this process can see. */
export const readAllMounts = shared(readAllMountsNow);

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

/** The directories in the options of an overlay, which are as they stand in mountinfo. */
function overlayDirectories(options: string): string[] {
  const withoutBackslashes = (text: string): string => text.replace(/\\(.)/gs, '$1');
  return options.split(',').flatMap((option) => {
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
        return [value, withoutBackslashes(value)];
      default:
        return [];
    }
  });
}

/** Whether the path of a layer is, or may be, within a directory: a relative one may begin in either of two places. */
function mayBeWithin(path: string, directory: string): boolean {
  if (path.startsWith('/')) return isWithin(path, directory);
  // It is relative to `snapshots/` or to the root of the store.
  const relative = directory.slice(directory.lastIndexOf('/snapshots/') + 1);
  return isWithin(path, relative) || isWithin(path, relative.slice('snapshots/'.length));
}

/** The device of a directory's filesystem, and the path of the directory within that filesystem. */
function placeOf(
  entries: readonly MountEntry[],
  directory: string,
): { device: string; path: string } | undefined {
  const holder = entries.reduce<MountEntry | undefined>(
    (best, entry) =>
      isWithin(directory, entry.mountPoint) && entry.mountPoint.length >= (best?.mountPoint.length ?? 0)
        ? entry
        : best,
    undefined,
  );
  if (holder === undefined) return undefined;
  const rest = directory.slice(holder.mountPoint === '/' ? 0 : holder.mountPoint.length);
  return { device: holder.device, path: `${holder.root === '/' ? '' : holder.root}${rest}` || '/' };
}

/** Whether a mount shows files of a directory: as a bind mount, or as an overlay with a layer in it. */
export function isMountOf({ entries }: NamespaceMounts, entry: MountEntry, directory: string): boolean {
  if (entry.type === 'overlay') {
    return entry.layers.some((path) => isWithin(path, directory) || /^\d+\/fs$/.test(path));
  }
  const place = placeOf(
    entries.filter((other) => other !== entry),
    directory,
  );
  return place !== undefined && place.device === entry.device && isWithin(entry.root, place.path);
}

/**
 * What uses a directory, as a phrase for a message: a mount on it or below it, a bind mount of something in it, or an
 * overlay with a layer in it. `undefined` if none of these mounts does.
 */
export function findUse(namespaces: readonly NamespaceMounts[], directory: string): string | undefined {
  const own = namespaces.find((mounts) => mounts.own)?.entries ?? [];
  const place = placeOf(own, directory);
  for (const mounts of namespaces) {
    const elsewhere = mounts.own ? '' : ' in another mount namespace';
    for (const { device, root, mountPoint, layers } of mounts.entries) {
      if (mounts.own && isWithin(mountPoint, directory)) return `${mountPoint} is a mount point`;
      if (place !== undefined && device === place.device && isWithin(root, place.path)) {
        return `it is mounted at ${mountPoint}${elsewhere}`;
      }
      if (layers.some((path) => mayBeWithin(path, directory)))
        return `the overlay at ${mountPoint}${elsewhere} uses it`;
    }
  }
  return undefined;
}

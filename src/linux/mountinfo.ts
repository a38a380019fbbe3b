import { openSync, readFileSync, readSync, readdirSync, readlinkSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { hasChanged } from './file-calls.ts';

/** One line of mountinfo: see proc(5). */
export interface MountEntry {
  /** Major and minor number of the filesystem's device. */
  readonly device: string;
  /** The directory within that filesystem which is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly type: string;
  /** The directories that an overlay is made of, as it was told them; a path may be relative to where that was. */
  readonly layers: readonly string[];
}

/** The mounts of one mount namespace. */
export interface NamespaceMounts {
  /** Whether these are the mounts of this process: only then do mount points mean anything here. */
  readonly own: boolean;
  readonly entries: readonly MountEntry[];
}

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
    const options = type === 'overlay' ? unescape(fields.slice(separator + 3).join(' ')) : '';
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

/** The table of this process, kept open, since the kernel then tells whether anything in it has changed. */
let table: { readonly fd: number; mounts: NamespaceMounts | undefined } | undefined;

/** The mounts that this process sees. */
export function readOwnMountsNow(): NamespaceMounts {
  table ??= { fd: openSync('/proc/self/mountinfo', 'r'), mounts: undefined };
  // Asked before it is read, so that what changes meanwhile is told of the next time.
  if (hasChanged(table.fd) || table.mounts === undefined) {
    table.mounts = { own: true, entries: parse(readAll(table.fd)) };
  }
  return table.mounts;
}

/** Reads a file of which nobody knows how long it is from its beginning. */
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
 * The mounts of this process's namespace and of every other one that a process here lives in. What no visible
 * process lives in, or may not be looked at, stays unseen.
 */
function allMounts(): NamespaceMounts[] {
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
      // The process has ended, or belongs to someone whose mounts are not for us to see.
    }
  }
  return all;
}

/** Lets all who ask in the same turn of the event loop share one look, which is made after they have asked. */
function shared<T>(look: () => T): () => Promise<T> {
  let next: Promise<T> | undefined;
  const after = async (): Promise<T> => {
    await nextTurn();
    next = undefined;
    return look();
  };
  return () => (next ??= after());
}

/** Looks at the mounts that this process sees. */
export const readOwnMounts = shared(readOwnMountsNow);

/** Looks at the mounts of every namespace that can be seen. */
export const readAllMounts = shared(allMounts);

function isWithin(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

/** The directories that the options of an overlay name. */
function overlayDirectories(options: string): string[] {
  const directories: string[] = [];
  for (const [, value = ''] of options.matchAll(
    /(?:^|,)(?:lowerdir\+?|datadir\+|upperdir|workdir)=((?:\\.|[^,\\])*)/gs,
  )) {
    for (const part of value.match(/(?:\\.|[^:\\])+/gs) ?? [])
      directories.push(part.replace(/\\(.)/gs, '$1'));
  }
  return directories;
}

/** Whether a layer's path is within a directory; one that is relative, to an unknown place, if it can be. */
function mayBeWithin(path: string, directory: string): boolean {
  if (path.startsWith('/')) return isWithin(path, directory);
  // Relative to the directory of the snapshots, or to the root.
  const below = directory.slice(directory.lastIndexOf('/snapshots/') + 1);
  return isWithin(path, below) || isWithin(path, below.slice('snapshots/'.length));
}

/** The filesystem of a directory, and the directory within it. */
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
  const below = directory.slice(holder.mountPoint === '/' ? 0 : holder.mountPoint.length);
  return { device: holder.device, path: `${holder.root === '/' ? '' : holder.root}${below}` || '/' };
}

/** Whether a mount is of something in a directory: a bind of it, or an overlay of layers in it. */
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
 * Says what uses a directory: a mount on it or below it, a bind mount of it or of something in it, or an overlay
 * that has it for a layer. `undefined` if nothing does, as far as these mounts tell.
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

import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';

/** How many lower layers overlayfs can stack. */
export const MAX_LOWERS = 500;

/** An option of the filesystem itself. */
interface FilesystemOption {
  readonly key: string;
  /** Absent if it is a flag. */
  readonly value: string | undefined;
}

/** The parsed options of a mount. */
export interface MountOptions {
  /** The flags of mount_setattr(2): attributes of the mount, not of the filesystem. */
  readonly attributes: number;
  readonly recursive: boolean;
  /** ID mappings of the form `container:host:length`, with commas between them. */
  readonly uidMappings: string | undefined;
  readonly gidMappings: string | undefined;
  /** The layers of an overlay, nearest first, as plain paths. */
  readonly lowers: readonly string[];
  /** The layers that hold only data, which are below the others. */
  readonly data: readonly string[];
  readonly upper: string | undefined;
  readonly work: string | undefined;
  readonly filesystem: readonly FilesystemOption[];
}

/** `MOUNT_ATTR_RDONLY`. */
export const READ_ONLY = 0x01;

/** The options that are attributes of a mount, with their flags in mount_setattr(2) and in mount(2). */
export const ATTRIBUTES: ReadonlyMap<string, { readonly attribute: number; readonly flag: number }> = new Map(
  [
    ['ro', { attribute: READ_ONLY, flag: 0x01 }],
    ['nosuid', { attribute: 0x02, flag: 0x02 }],
    ['nodev', { attribute: 0x04, flag: 0x04 }],
    ['noexec', { attribute: 0x08, flag: 0x08 }],
    ['noatime', { attribute: 0x10, flag: 0x400 }],
    ['nodiratime', { attribute: 0x80, flag: 0x800 }],
  ],
);

const IGNORED = new Set(['rw', 'bind', 'rbind', 'suid', 'dev', 'exec', 'relatime', 'defaults']);

function unescape(value: string): string {
  return value.replace(/\\(.)/gs, '$1');
}

/** Parses `lowerdir`: colons separate the layers, and those behind a double colon hold only data. */
function toLayers(value: string): { lowers: string[]; data: string[] } {
  const lowers: string[] = [];
  const data: string[] = [];
  let list = lowers;
  for (const [, path = '', separator = ''] of value.matchAll(/((?:\\.|[^\\:])*)(::?|$)/gs)) {
    if (path !== '') list.push(unescape(path));
    if (separator === '::') list = data;
  }
  return { lowers, data };
}

/**
 * Parses the options of a mount.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if one contains a NUL
 * @throws {SnapshotError} FAILED_PRECONDITION if there are more layers than overlayfs can stack
 */
export function parseOptions(options: readonly string[]): MountOptions {
  let attributes = 0;
  let recursive = false;
  let layers: ReturnType<typeof toLayers> = { lowers: [], data: [] };
  const special = new Map<string, string>();
  const filesystem: FilesystemOption[] = [];
  for (const option of options) {
    if (option.includes('\0')) {
      throw new SnapshotError('INVALID_ARGUMENT', `mount option ${quote(option)} holds a NUL`);
    }
    const at = option.indexOf('=');
    const key = at < 0 ? option : option.slice(0, at);
    const value = at < 0 ? undefined : option.slice(at + 1);
    const attribute = ATTRIBUTES.get(option);
    if (attribute !== undefined) attributes |= attribute.attribute;
    else if (IGNORED.has(option)) recursive ||= option === 'rbind';
    else if (key === 'lowerdir' && value !== undefined) layers = toLayers(value);
    else if (['upperdir', 'workdir', 'uidmap', 'gidmap'].includes(key) && value !== undefined)
      special.set(key, value);
    else filesystem.push({ key, value });
  }
  if (layers.lowers.length + layers.data.length > MAX_LOWERS) {
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `${layers.lowers.length + layers.data.length} layers are more than the ${MAX_LOWERS} that overlayfs stacks`,
    );
  }
  const path = (key: string): string | undefined => {
    const value = special.get(key);
    return value === undefined ? undefined : unescape(value);
  };
  return {
    attributes,
    recursive,
    uidMappings: special.get('uidmap'),
    gidMappings: special.get('gidmap'),
    ...layers,
    upper: path('upperdir'),
    work: path('workdir'),
    filesystem,
  };
}

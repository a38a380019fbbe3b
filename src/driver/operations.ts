import { SnapshotError } from '../errors.ts';
import { findUse, ownMounts } from '../linux/mountinfo.ts';
import type { Removal } from '../metadata/reader.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { checkLabels, checkName, checkOptions, checkParent, kindOf, quote } from '../names.ts';
import type {
  CommitOptions,
  Info,
  Mount,
  PrepareOptions,
  SnapshotRecord,
  UpdateOptions,
} from '../snapshot.ts';
import type { Directories } from './directories.ts';
import { checkIdMappings } from './idmap.ts';
import type { Layout } from './layout.ts';
import { type MountTable, checkDepth } from './mounts.ts';
import { type Measure, measureNow } from './seal.ts';

/** The label that tells containerd where a snapshot's own layer is. */
const UPPERDIR = 'containerd.io/snapshot/overlay.upperdir';

/** A layer that has been measured and digested, ready to be committed. It is good for that very snapshot only. */
export interface Seal extends Measure {
  readonly key: string;
  readonly id: number;
  /** Whether something had it mounted. */
  readonly inUse: boolean;
}

/** The options of a commit, with the seal that it takes. */
export interface SealedCommitOptions extends CommitOptions {
  seal?: Seal;
}

/** What the operations work with. */
interface Parts {
  readonly store: MetadataStore;
  readonly directories: Directories;
  readonly table: MountTable;
  readonly layout: Layout;
  readonly upperdirLabel: boolean;
}

/**
 * What the driver does, on rows and directories together: each operation synchronous, and within the transaction
 * that is open.
 */
export class Operations {
  readonly #store: MetadataStore;
  readonly #directories: Directories;
  readonly #table: MountTable;
  readonly #layout: Layout;
  readonly #upperdirLabel: boolean;

  constructor({ store, directories, table, layout, upperdirLabel }: Parts) {
    this.#store = store;
    this.#directories = directories;
    this.#table = table;
    this.#layout = layout;
    this.#upperdirLabel = upperdirLabel;
  }

  /** Makes a row and its directories, and tells the mounts. */
  make(kind: 'active' | 'view', { key, parent, options }: MakeArguments): Mount[] {
    const labels = options.labels ?? {};
    return this.#store.transaction((store) => {
      const { id } =
        kind === 'active' ? store.prepare(key, parent, { labels }) : store.view(key, parent, { labels });
      const lowers = store.lowers(id).slice(1);
      checkDepth(key, lowers);
      if (kind === 'active' || lowers.length === 0) {
        this.#directories.make({ id, writable: kind === 'active', parentId: lowers[0], labels });
      }
      return this.#table.mounts({ id, kind, labels, lowers });
    });
  }

  /** Tells the mounts of an open snapshot. */
  mounts(key: string): Mount[] {
    const { id, kind } = this.#store.find(checkName(key, 'key'));
    if (kind === 'committed') {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(key)} is committed and has no mounts of its own`,
        {
          hint: 'make a view of it',
        },
      );
    }
    const { labels } = this.#store.stat(key);
    return this.#table.mounts({ id, kind, labels, lowers: this.#store.lowers(id).slice(1) });
  }

  /** Flips a row. Without a seal the layer is measured on the spot. */
  commit(name: string, key: string, options: SealedCommitOptions): Info {
    return this.#store.transaction((store) => {
      const seal = options.seal ?? this.#sealNow(key);
      if (store.exists(key) && store.find(key).id !== seal.id) {
        throw new SnapshotError(
          'FAILED_PRECONDITION',
          `${quote(key)} is another snapshot than the one that was sealed`,
        );
      }
      const record = store.commit(name, key, {
        labels: options.labels ?? {},
        ...(options.parent !== undefined && { parent: options.parent }),
        usage: seal.usage,
        seal: seal.digest,
        inUse: seal.inUse,
      });
      if (options.parent !== undefined) checkDepth(name, store.lowers(record.id).slice(1));
      return this.info(record);
    });
  }

  /** Takes an open snapshot's row away. */
  remove(key: string): Removal {
    return this.#store.remove(key);
  }

  /** Takes a committed snapshot's row away. */
  delete(name: string): Removal {
    return this.#store.delete(name);
  }

  /** Changes labels. */
  update(keyOrName: string, options: UpdateOptions, fieldpaths?: readonly string[]): Info {
    checkName(keyOrName, 'key or name');
    if (typeof options !== 'object' || options === null) {
      throw new TypeError(`options must be an object, not ${kindOf(options)}`);
    }
    checkIdMappings(checkLabels(options.labels));
    return this.info(this.#store.update(keyOrName, options, fieldpaths));
  }

  /** All that is known of a snapshot. */
  stat(keyOrName: string): Info {
    return this.info(this.#store.stat(keyOrName));
  }

  exists(keyOrName: string): boolean {
    return this.#store.exists(keyOrName);
  }

  parent(keyOrName: string): string | null {
    return this.#store.parent(keyOrName);
  }

  /** Whether something that is mounted here uses a snapshot's layer. */
  inUse(id: number): boolean {
    return findUse([ownMounts()], this.#layout.directory(id)) !== undefined;
  }

  /** A record with what the driver knows beyond it. */
  info(record: SnapshotRecord): Info {
    const { id, kind, parent, labels } = record;
    const directory = kind === 'view' && parent !== null ? null : this.#layout.directory(id);
    if (!this.#upperdirLabel || directory === null) return { ...record, directory };
    return { ...record, directory, labels: { ...labels, [UPPERDIR]: this.#layout.fs(id) } };
  }

  #sealNow(key: string): Seal {
    const { id } = this.#store.find(checkName(key, 'key'));
    return { key, id, inUse: this.inUse(id), ...measureNow(this.#layout.fs(id)) };
  }
}

/** The arguments of `prepare` and `view`, checked. */
export interface MakeArguments {
  readonly key: string;
  readonly parent: string | null;
  readonly options: PrepareOptions;
}

/** Checks the arguments of `prepare` and `view`. */
export function toMakeArguments(
  key: unknown,
  parent: unknown,
  given: PrepareOptions | undefined,
): MakeArguments {
  const labels = checkLabels(checkOptions(given, ['labels']).labels);
  checkIdMappings(labels);
  return { key: checkName(key, 'key'), parent: checkParent(parent), options: { labels } };
}

/** Checks the options of a commit. */
export function toCommitOptions<T extends CommitOptions>(
  given: T | undefined,
  known: readonly (keyof T & string)[],
): Partial<T> {
  const options = checkOptions(given, known);
  checkIdMappings(checkLabels(options.labels));
  const { inUse } = options;
  if (inUse !== undefined && inUse !== 'allow' && inUse !== 'refuse') {
    throw new SnapshotError('INVALID_ARGUMENT', `inUse is "allow" or "refuse", not ${quote(String(inUse))}`);
  }
  checkParent(options.parent);
  return options;
}

/** @throws {SnapshotError} FAILED_PRECONDITION if a layer is in use and may not be */
export function checkUse({ key, inUse }: Seal, policy: CommitOptions['inUse']): void {
  if (!inUse || policy !== 'refuse') return;
  throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is still mounted`, {
    hint: 'unmount it first',
  });
}

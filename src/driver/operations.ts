import { SnapshotError } from '../errors.ts';
import type { Found, Removal } from '../metadata/reader.ts';
import type { MetadataStore } from '../metadata/store.ts';
import { checkLabels, checkName, checkOptions, checkParent, kindOf } from '../arguments.ts';
import { quote } from '../quote.ts';
import type {
  CommitOptions,
  Info,
  Labels,
  Mount,
  PrepareOptions,
  Seal,
  SealedCommitOptions,
  SnapshotRecord,
  UpdateOptions,
} from '../snapshot.ts';
import { currentBoot } from '../linux/boot.ts';
import { MAX_LOWERS } from '../mount/options.ts';
import { Chains } from './chains.ts';
import type { Directories } from '../layers/directories.ts';
import { checkIdMappings } from '../layers/id-mapping.ts';
import type { Layer, LayerSeal, Layers } from '../layers/layers.ts';
import type { Layout } from '../layers/layout.ts';
import { type Look, type MountTable, checkDepth } from './mount-table.ts';
import type { DirectoryLock } from '../layers/directory-lock.ts';

/** The label that tells containerd where a snapshot's own layer is. */
const UPPERDIR = 'containerd.io/snapshot/overlay.upperdir';

/** How a copy becomes a committed snapshot. */
interface CaptureOptions {
  readonly labels: Labels | undefined;
  readonly parent: string | undefined;
  readonly seal: LayerSeal;
  /** The id that the copy was made for. */
  readonly reserved: number;
  /** Whether it takes the place of the active snapshot, which goes. */
  readonly replace: boolean;
}

/** What the operations work with. */
interface Parts {
  readonly store: MetadataStore;
  readonly directories: Directories;
  readonly table: MountTable;
  readonly layers: Layers;
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
  readonly #chains: Chains;
  readonly #layers: Layers;
  readonly #layout: Layout;
  readonly #upperdirLabel: boolean;

  constructor({ store, directories, table, layers, layout, upperdirLabel }: Parts) {
    this.#store = store;
    this.#directories = directories;
    this.#table = table;
    this.#chains = new Chains(store, table.between);
    this.#layers = layers;
    this.#layout = layout;
    this.#upperdirLabel = upperdirLabel;
  }

  /** Makes a row and its directories, and tells the mounts. */
  make(kind: 'active' | 'view', { key, parent, options }: MakeArguments): Mount[] {
    const { labels = {}, volatile = false } = options;
    return this.#store.transaction((store) => {
      const { id } =
        kind === 'active'
          ? store.prepare(key, parent, { labels, ...(volatile && { volatileBoot: currentBoot() }) })
          : store.view(key, parent, { labels });
      const { parentId } = store.find(key);
      const { lowers, depth } = this.#chains.below({ name: key, parentId });
      checkDepth(key, depth);
      if (kind === 'active' || parentId === null) {
        this.#directories.make({ id, writable: kind === 'active', parentId, labels });
      }
      return this.#table.mounts({ id, kind, labels, lowers, volatile });
    });
  }

  /** Tells the mounts of an open snapshot. */
  mounts(key: string): Mount[] {
    const found = this.#store.find(checkName(key, 'key'));
    const { id, kind, volatileBoot } = found;
    if (kind === 'committed') {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(key)} is committed and has no mounts of its own`,
        {
          hint: 'make a view of it',
        },
      );
    }
    const labels = this.#table.usesLabels ? this.#store.stat(key).labels : {};
    const { lowers } = this.#chains.below(found);
    return this.#table.mounts({ id, kind, labels, lowers, volatile: volatileBoot !== null });
  }

  /** How to look at what a snapshot of any kind holds: the mount that a view of it has, and its layers. */
  look(keyOrName: string): Look {
    const found = this.#store.find(checkName(keyOrName, 'key or name'));
    const { id, kind } = found;
    const { lowers: chain, depth } = this.#chains.below(found);
    const below = depth === 0 ? [] : chain.split(this.#table.between).map(Number);
    const layers = kind === 'view' && depth > 0 ? below : [id, ...below];
    if (layers.length > MAX_LOWERS) {
      throw new SnapshotError(
        'FAILED_PRECONDITION',
        `${quote(keyOrName)} consists of ${layers.length} layers, of which overlayfs shows no more than ${MAX_LOWERS} at once`,
      );
    }
    const lowers = layers.join(this.#table.between);
    return {
      mounts: this.#table.mounts({ id, kind: 'view', labels: {}, lowers, volatile: false }),
      layers,
    };
  }

  /** Flips a row. Without a seal the layer is sealed on the spot. */
  commit(name: string, key: string, options: SealedCommitOptions): Info {
    return this.#store.transaction((store) => {
      const seal = options.seal ?? this.#sealNow(key);
      checkSame(store.lookUp(key), seal);
      const record = store.commit(name, key, {
        labels: options.labels ?? {},
        ...(options.parent !== undefined && { parent: options.parent }),
        usage: seal.usage,
        seal: seal.digest,
        inUse: seal.inUse,
      });
      if (options.parent !== undefined) checkDepth(name, this.#chains.below(store.find(name)).depth);
      return this.info(record);
    });
  }

  /** Reserves an id for a copy, with its directory, and locks that. */
  reserve(): DirectoryLock {
    return this.#store.transaction((store) => this.#directories.reserve(store.reserve()));
  }

  /** Makes a copy of an active snapshot's layer a committed snapshot. */
  capture(
    name: string,
    { key, id }: Layer,
    { labels, parent, seal, reserved, replace }: CaptureOptions,
  ): Info {
    return this.#store.transaction((store) => {
      checkSame(store.lookUp(key), { id });
      const record = store.checkpoint(name, key, reserved, {
        labels: labels ?? {},
        ...(parent !== undefined && { parent }),
        usage: seal.usage,
        seal: seal.digest,
        inUse: seal.inUse,
      });
      if (parent !== undefined) checkDepth(name, this.#chains.below(store.find(name)).depth);
      if (replace) store.remove(key);
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

  /**
   * A record with what the driver knows beyond it. It is the same object, which nobody else has: in a listing, a copy
   * would cost a third of reading it.
   */
  info(record: SnapshotRecord): Info {
    const { id, kind, parent, labels } = record;
    const directory = kind === 'view' && parent !== null ? null : this.#layout.directory(id);
    if (!this.#upperdirLabel || directory === null) return Object.assign(record, { directory });
    return { ...record, directory, labels: { ...labels, [UPPERDIR]: this.#layout.fs(id) } };
  }

  #sealNow(key: string): Seal {
    const { id, parentId } = this.#store.find(checkName(key, 'key'));
    return { key, id, ...this.#layers.sealNow({ key, id, base: parentId === null }) };
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
  kind: 'active' | 'view',
  key: unknown,
  parent: unknown,
  given: PrepareOptions | undefined,
): MakeArguments {
  const options = checkOptions(given, kind === 'active' ? ['labels', 'volatile'] : ['labels']);
  const labels = checkLabels(options.labels);
  checkIdMappings(labels);
  const { volatile = false } = options;
  if (typeof volatile !== 'boolean')
    throw new TypeError(`volatile must be a boolean, not ${kindOf(volatile)}`);
  return { key: checkName(key, 'key'), parent: checkParent(parent), options: { labels, volatile } };
}

/** What can be said of a layer that is in use. */
type Policy = NonNullable<CommitOptions['inUse']>;

/** Checks the options of a commit, of which some are known here. */
export function toCommitOptions<T extends CommitOptions | SealedCommitOptions>(
  given: T | undefined,
  known: readonly (keyof T & string)[],
  policies: readonly Policy[],
): Partial<T> {
  const options = checkOptions(given, known);
  checkIdMappings(checkLabels(options.labels));
  const { inUse } = options;
  if (inUse !== undefined && !policies.includes(inUse)) {
    const words = policies.map((policy) => `"${policy}"`).join(' or ');
    throw new SnapshotError('INVALID_ARGUMENT', `inUse is ${words}, not ${quote(inUse)}`);
  }
  checkParent(options.parent);
  return options;
}

/** @throws {SnapshotError} FAILED_PRECONDITION if a layer is in use and may not be */
export function checkUse({ key, inUse }: Pick<Seal, 'key' | 'inUse'>, policy: Policy): void {
  if (!inUse || policy !== 'refuse') return;
  throw new SnapshotError('FAILED_PRECONDITION', `${quote(key)} is still in use`, {
    hint: 'unmount it, and let what writes to it come to rest',
  });
}

/** Looks that a key, if it is there, still is the one that was sealed. */
function checkSame(found: Found | undefined, sealed: Pick<Seal, 'id'>): void {
  if (found === undefined || found.id === sealed.id) return;
  throw new SnapshotError(
    'FAILED_PRECONDITION',
    `${quote(found.name)} is another snapshot than the one that was sealed`,
  );
}

/**
 * The words of this package and the contract of a snapshotter.
 *
 * A snapshot is a layer on top of its chain of ancestors. It starts open, as *active* (writable) or
 * as a *view* (read-only), and is named by a `key`. Committing an active snapshot seals its layer:
 * the key is gone, a *committed* snapshot with a `name` is there in its place, and others can be
 * built on it. Keys and names share one key space.
 */

/** `active` and `view` are open; `committed` is immutable and can be a parent. */
export type Kind = 'active' | 'view' | 'committed';

/** Labels by key. A key and its value together hold at most 4,096 bytes; an empty value means none. */
export type Labels = Readonly<Record<string, string>>;

/** One mount, as mount(8) takes it: `mount -t type source target -o options`. */
export interface Mount {
  readonly type: 'bind' | 'overlay';
  readonly source: string;
  readonly options: readonly string[];
}

/** What a layer of its own holds, without its parents. */
export interface Usage {
  /** Files, directories and other inodes, each hard-linked one once, the root included. */
  readonly inodes: number;
  /** Bytes on disk: blocks of 512 bytes, each hard-linked inode once. */
  readonly size: number;
}

/** What the metadata knows of a snapshot. */
export interface SnapshotRecord {
  /** Row id, and the name of the directory under `snapshots/`; never reused; not a public handle. */
  readonly id: number;
  /** The key of an open snapshot, the name of a committed one. */
  readonly name: string;
  readonly kind: Kind;
  /** The name of the committed snapshot that this one descends from; `null` for a base. */
  readonly parent: string | null;
  readonly labels: Labels;
  /** When it was prepared; of a committed snapshot, when it was committed. */
  readonly created: Date;
  /** When it was last changed, labels included. */
  readonly updated: Date;
  /** `created` in exact microseconds since the epoch. */
  readonly createdUs: number;
  /** `updated` in exact microseconds since the epoch. */
  readonly updatedUs: number;
  /**
   * The digests over the layer of a committed snapshot, `metadata1:` and, if contents were sealed too, `content1:`,
   * each a SHA-256 in hexadecimal, with a space between them; `null` while it is open, or if it was not sealed.
   */
  readonly seal: string | null;
  /** Whether something still had it mounted when it was committed; `null` while it is open, or unknown. */
  readonly inUse: boolean | null;
  /** Whether it is active and was prepared as volatile. */
  readonly volatile: boolean;
}

/** A snapshot as the driver tells of it. */
export interface Info extends SnapshotRecord {
  /** Absolute path of `snapshots/<id>`; `null` for a view on a parent, which needs no directory. */
  readonly directory: string | null;
}

/** Who waits for a write. */
export interface Waiting {
  /**
   * Ends the wait: what has not begun by then does not begin, and the promise is rejected with the signal's reason.
   * What has begun is finished.
   */
  signal?: AbortSignal;
}

/** What is given when a view is made. */
export interface ViewOptions {
  labels?: Labels;
}

/** What is given when an active snapshot is made. */
export interface PrepareOptions extends ViewOptions {
  /**
   * Leave out the syncing of what is written to it through an overlay: faster, for work that can be thrown away. After
   * a crash of the machine, but not of a process, such a snapshot is lost. Off unless given.
   */
  volatile?: boolean;
}

/** How far a commit or checkpoint has come. */
export interface Progress {
  readonly phase: 'copying' | 'measuring' | 'syncing';
  /** Files, directories and other inodes that this phase has dealt with. */
  readonly inodes: number;
  /** What they hold, in bytes on disk. */
  readonly bytes: number;
}

/** How far something has come of which there is a known amount to do. */
export interface Tally {
  readonly done: number;
  readonly total: number;
}

/** Who looks on while something takes long. */
export interface Watched<Step = Progress> {
  /** Ends it, with nothing changed and nothing left behind: the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Told now and then how far it has come. What it throws ends it like the signal does. */
  onProgress?: (progress: Step) => void;
}

/** What is given when a snapshot is committed. */
export interface CommitOptions extends Watched {
  /** The labels of the committed snapshot. Those of the active one are not inherited. */
  labels?: Labels;
  /** The name to descend from, for a snapshot that was prepared without a parent; otherwise its own. */
  parent?: string;
  /**
   * What to do when the layer is still mounted, or changes while it is committed, so that something may go on
   * writing into it: `allow` (default) commits it and says so in `Info.inUse`, `refuse` fails with
   * `FAILED_PRECONDITION`, `copy` commits a copy that nothing else can write to.
   */
  inUse?: 'allow' | 'refuse' | 'copy';
}

/** What is given when a checkpoint is made. */
export interface CheckpointOptions extends Watched {
  /** The labels of the committed snapshot. Those of the active one are not inherited. */
  labels?: Labels;
}

/** What is given when labels change. */
export interface UpdateOptions {
  labels: Labels;
}

/** What came of a removal. */
export interface RemoveResult {
  /** Why the directory could not be deleted yet; it stays in the removal journal. */
  readonly deferred?: string;
}

/** What is given to a backup. Progress is counted in bytes. */
export type BackupOptions = Watched<Tally>;

/** What is given to a cleanup. A signal ends it between two directories; progress is counted in removals. */
export type CleanupOptions = Watched<Tally>;

/** What came of a cleanup. */
export interface CleanupResult {
  /** How many journalled removals were carried out. */
  readonly removed: number;
  /** Those that have to wait, and why. */
  readonly deferred: readonly { readonly path: string; readonly reason: string }[];
}

/** The result of `owner`. */
export interface Owner {
  readonly snapshot: Info;
  /** Everything that descends from it, however far, in the order of creation. */
  readonly descendants: readonly Info[];
}

/**
 * The contract. Every promise of a write resolves only once the change is durable, and a rejected
 * one has changed nothing. A key or name is any non-empty string of at most 4,096 bytes of UTF-8
 * without NUL and lone surrogates; what else is given fails with `INVALID_ARGUMENT`, what is not a
 * string at all with a `TypeError`. After `close` every method fails with `FAILED_PRECONDITION`.
 */
export interface Snapshotter {
  /**
   * Makes an active snapshot on a committed parent, or on nothing, and tells how to mount it.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the key is taken by anything
   * @throws {SnapshotError} NOT_FOUND if the parent is missing
   * @throws {SnapshotError} INVALID_ARGUMENT if the parent is not committed
   * @throws {SnapshotError} FAILED_PRECONDITION if the chain is longer than overlayfs can stack (500)
   */
  prepare(key: string, parent?: string | null, options?: PrepareOptions & Waiting): Promise<Mount[]>;

  /**
   * Makes a view: the same as `prepare`, read-only, and never committed.
   *
   * @throws {SnapshotError} as `prepare`
   */
  view(key: string, parent?: string | null, options?: ViewOptions & Waiting): Promise<Mount[]>;

  /**
   * Tells again how to mount an open snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed
   */
  mounts(key: string): Promise<Mount[]>;

  /**
   * Seals the active snapshot `key` as `name`. `key` is gone afterwards, `name` has its parent and
   * its directory. `created` becomes the time of the commit. Unless told otherwise, what the layer
   * holds is durable before `name` is there.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the name is taken
   * @throws {SnapshotError} NOT_FOUND if the key, or a given parent, is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if the key is not active, a given parent is not
   *   committed, or it is in use and `inUse` is `refuse`
   * @throws {SnapshotError} INVALID_ARGUMENT if a parent other than the key's own is given
   * @throws {SnapshotError} DATA_LOSS if the layer is missing, or the disk failed under it
   * @throws the reason of `signal`
   */
  commit(name: string, key: string, options?: CommitOptions): Promise<Info>;

  /**
   * Captures what the active snapshot `key` holds now as the committed snapshot `name`, an exact
   * copy with the parent that `key` has. `key` stays active, with its parent, its layer and its
   * mounts; this may be done any number of times. A file that is written to meanwhile is copied as
   * it was at some moment, each file at its own.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the name is taken
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if the key is not active, or a file keeps getting
   *   shorter while it is read
   * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is no space for the copy
   * @throws {SnapshotError} DATA_LOSS if the layer is missing, or the disk failed under it
   * @throws the reason of `signal`
   */
  checkpoint(name: string, key: string, options?: CheckpointOptions): Promise<Info>;

  /**
   * Abandons an active snapshot or a view. Resolves after the attempt to delete its directory,
   * unless the driver was opened to leave that to `cleanup`.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed
   */
  remove(key: string, options?: Waiting): Promise<RemoveResult>;

  /**
   * Deletes a committed snapshot, its directory as `remove` does.
   *
   * @throws {SnapshotError} NOT_FOUND if the name is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it has children or is not committed
   */
  delete(name: string, options?: Waiting): Promise<RemoveResult>;

  /**
   * The name of the parent, or `null`.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  parent(keyOrName: string): Promise<string | null>;

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): Promise<boolean>;

  /**
   * All that is known of a snapshot.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  stat(keyOrName: string): Promise<Info>;

  /**
   * Changes labels, of a snapshot of any kind. Without `fieldpaths`, or with `labels` among them,
   * the given labels replace all; `labels.k` sets `k` alone. An empty or absent value removes.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   * @throws {SnapshotError} INVALID_ARGUMENT if a field path is of something else
   */
  update(keyOrName: string, options: UpdateOptions & Waiting, fieldpaths?: readonly string[]): Promise<Info>;

  /**
   * What the layer itself holds: as measured at commit, now for an active one, nothing for a view.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  usage(keyOrName: string): Promise<Usage>;

  /**
   * Calls `fn` for every committed snapshot that any of the filters takes, parents before children,
   * one after the other. `fn` may call any method.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse
   */
  walk(fn: (info: Info) => void | Promise<void>, ...filters: string[]): Promise<void>;

  /** Calls `fn` for every open snapshot. */
  active(fn: (info: Info) => void | Promise<void>): Promise<void>;

  /**
   * Every snapshot, of any kind, that any of the filters takes, parents before children. The iterator's `return` ends
   * a search that is under way.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse
   */
  snapshots(...filters: string[]): AsyncIterable<Info>;

  /**
   * The direct children, in the order of creation.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  children(name: string): Promise<Info[]>;

  /**
   * The ancestors, nearest first, without the snapshot itself.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  chain(keyOrName: string): Promise<Info[]>;

  /**
   * Deletes the directories of removed snapshots that are still there. The signal ends it between two of them, or
   * within a large one.
   */
  cleanup(options?: CleanupOptions): Promise<CleanupResult>;

  /** Finishes what is under way and lets go of the store. May be called more than once. */
  close(): Promise<void>;
}

/**
 * The contract: what a snapshot is, the words for it, every method with its errors, and how to use them.
 *
 * # Lifecycle
 *
 * A snapshot is a layer on top of the layers of its ancestors; mounted, they are one file tree. Snapshots are best
 * understood by their lifecycle:
 *
 *     prepare ──▶ active ──── commit ────▶ committed ──▶ delete
 *                 │    └── checkpoint ───▶ committed
 *                 └──▶ remove
 *     view ─────▶ view ──▶ remove
 *
 * - An *active* snapshot can be written to. `prepare` makes one, on a committed parent or empty. It ends with `commit`,
 *   which keeps what was written, or with `remove`, which abandons it.
 * - A *view* is read-only. `view` makes one, `remove` ends it, and it is never committed.
 * - A *committed* snapshot never changes, apart from its labels. Others are built on it, and `delete` removes it once no
 *   snapshot has it as its parent. A `checkpoint` makes one too, as a copy of an active snapshot, which stays active.
 *
 * # Words
 *
 * - **key**: what an open snapshot (active or view) is called. It lasts until the snapshot is committed or removed.
 * - **name**: what a committed snapshot is called. Keys and names share one key space: none is used twice.
 * - **parent**: the committed snapshot that another one is built on. A snapshot without a parent is a *base*.
 * - **chain**: the ancestors of a snapshot, from its parent to its base.
 * - **layer**: the directory with what a snapshot itself adds to its parent, changes in it and deletes from it.
 * - **mounts**: how the file tree of an open snapshot is mounted: a list that mount(8) and containerd understand too. A
 *   base is a bind mount, and so is a view of a base; everything else is an overlay.
 * - **label**: text by a key of its own, for callers to find and group snapshots by.
 * - **usage**: the space that a layer takes, without its ancestors.
 * - **seal**: the digest over the layer of a committed snapshot, by which a check notices damage.
 *
 * A key or name is any non-empty string of at most 4,096 bytes of UTF-8 without NUL and lone surrogates.
 *
 * # Making a base
 *
 * Prepare a snapshot without a parent, fill it, and commit it. `withMount`, from `overlite/mount`, mounts it on a
 * temporary directory while a function runs.
 *
 * ```js
 * const mounts = await driver.prepare('debian-import', null, { labels: { source: 'debian.tar' } });
 * try {
 *   await withMount(mounts, (path) => unpack('debian.tar', path));
 *   await driver.commit('debian', 'debian-import', { labels: { image: 'debian:12' } });
 * } catch (error) {
 *   await driver.remove('debian-import');
 *   throw error;
 * }
 * ```
 *
 * When `commit` has resolved, every file in the layer is on disk, `debian-import` is gone, and `debian` is there with the
 * labels that `commit` was given: those of the key are not inherited. Until then nobody can build on it.
 *
 * # A workspace, and its result
 *
 * Prepare a snapshot on the base and mount it: it shows the base, and whatever is written goes into a layer of its own.
 * Any number of workspaces on one base do not notice each other. A checkpoint keeps what is there at some point while
 * the work goes on; the commit at the end keeps the result.
 *
 * ```js
 * await driver.prepare('job-7', 'debian');
 * await driver.mount('job-7', target);
 * try {
 *   await build(target);
 *   await driver.checkpoint('job-7-built', 'job-7');
 *   await verify(target);
 * } finally {
 *   await driver.unmount(target);
 * }
 * await driver.commit('result-7', 'job-7', { inUse: 'refuse' });
 *
 * for await (const { kind, path } of driver.diff('result-7')) console.log(kind, path);
 * ```
 *
 * With `inUse: 'refuse'` the commit fails if something still has the layer mounted and could go on writing to it.
 * `result-7` and `job-7-built` are both children of `debian`, and their layers hold only what the job changed. If the job
 * had failed, `driver.remove('job-7')` would have thrown its changes away.
 *
 * # Several changes in one transaction
 *
 * Everything that a transaction does is there afterwards, rows and directories, or nothing is. Its function is
 * synchronous. So what takes long comes before it: `seal` measures a layer and syncs it to disk, and the transaction only
 * commits the result.
 *
 * ```js
 * await withMount(await driver.prepare('job-8', 'result-7'), (path) => build(path));
 * const seal = await driver.seal('job-8');
 *
 * await driver.transaction((tx) => {
 *   tx.commit('result-8', 'job-8', { seal });
 *   tx.prepare('job-9', 'result-8');
 *   tx.update('result-7', { labels: { replaced: 'yes' } }, ['labels.replaced']);
 * });
 * ```
 *
 * If the function throws, `transaction` is rejected with what it threw, and `job-8` is still active.
 */

import type { CheckOptions, Report } from './report.ts';

/** `active` and `view` are open; `committed` is immutable and can be a parent. */
export type Kind = 'active' | 'view' | 'committed';

/** Labels by key. A key and its value together hold at most 4,096 bytes; an empty value is the same as no label. */
export type Labels = Readonly<Record<string, string>>;

/** One mount, as mount(8) takes it: `mount -t type source target -o options`. */
export interface Mount {
  readonly type: 'bind' | 'overlay';
  readonly source: string;
  readonly options: readonly string[];
}

/** The space that the layer of a snapshot takes, without its ancestors. */
export interface Usage {
  /** Files, directories and other inodes, the root included; a hard-linked inode counts once. */
  readonly inodes: number;
  /** Bytes on disk, in blocks of 512 bytes; a hard-linked inode counts once. */
  readonly size: number;
}

/** What the metadata knows of a snapshot. */
export interface SnapshotRecord {
  /** Row id, and the name of the directory under `snapshots/`; never reused; not a public handle. */
  readonly id: number;
  /** The key of an open snapshot, the name of a committed one. */
  readonly name: string;
  readonly kind: Kind;
  /** The name of its parent; `null` for a base. */
  readonly parent: string | null;
  readonly labels: Labels;
  /** When it was prepared; for a committed snapshot, when it was committed. */
  readonly created: Date;
  /**
   * When it was last changed, labels included: a time of the machine's clock that is neither before the call that changed
   * it nor after the answer to it, and later than those of all earlier changes that the process has made. If the clock is
   * set back by less than a minute, times go on from the last one, a microsecond each, until it has caught up.
   */
  readonly updated: Date;
  /** `created` in exact microseconds since the epoch. */
  readonly createdUs: number;
  /** `updated` in exact microseconds since the epoch. */
  readonly updatedUs: number;
  /**
   * The digests over the layer of a committed snapshot: `metadata1:` with a SHA-256 in hexadecimal and, if contents were
   * sealed too, a space and `content2:` with another; older stores have `content1:`. `null` while it is open, or if it
   * was not sealed.
   */
  readonly seal: string | null;
  /** Whether its layer was in use when it was committed; `null` while it is open, or if that is not known. */
  readonly inUse: boolean | null;
  /** Whether it is active and was prepared as volatile. */
  readonly volatile: boolean;
}

/** What a driver knows of a snapshot. */
export interface Info extends SnapshotRecord {
  /** Absolute path of `snapshots/<id>`; `null` for a view of a parent, which needs no directory. */
  readonly directory: string | null;
}

/**
 * The contract of every snapshotter; `overlite/conformance` tests it.
 *
 * A write resolves once it is durable. If it is rejected, it has changed nothing, with one exception: when the disk fails
 * during the commit of the database itself, the error is `UNAVAILABLE`, and whether the write is there is settled by the
 * next one.
 *
 * Errors are `SnapshotError`s. Besides those that a method names, it can fail with:
 *
 * - `INVALID_ARGUMENT` if a key, name or label is not proper text; a value that is not a string at all is a `TypeError`
 * - `FAILED_PRECONDITION` after `close`, and for a write once the root is not in its place any more
 * - `UNAVAILABLE` if the database stays locked or its disk fails, or another call goes on mounting, sealing, committing
 *   or copying the same snapshot for longer than the busy timeout
 * - `RESOURCE_EXHAUSTED` if there is no space for a write
 * - `DATA_LOSS` if the database is damaged
 * - the reason of `signal`, as it is, where one is taken
 */
export interface Snapshotter {
  /**
   * Makes an active snapshot on a committed parent, or an empty one, and returns its mounts.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the key is taken, by a snapshot of any kind
   * @throws {SnapshotError} NOT_FOUND if the parent is missing
   * @throws {SnapshotError} INVALID_ARGUMENT if the parent is not committed
   * @throws {SnapshotError} FAILED_PRECONDITION if the chain is longer than overlayfs can stack (500)
   */
  prepare(key: string, parent?: string | null, options?: PrepareOptions & Waiting): Promise<Mount[]>;

  /**
   * Makes a view: the same as `prepare`, but read-only, and never committed.
   *
   * @throws {SnapshotError} as `prepare`
   */
  view(key: string, parent?: string | null, options?: ViewOptions & Waiting): Promise<Mount[]>;

  /**
   * The mounts of an open snapshot, as `prepare` or `view` returned them.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed
   */
  mounts(key: string): Promise<Mount[]>;

  /**
   * Turns the active snapshot `key` into the committed snapshot `name`, with the same parent, layer and directory, and
   * with the time of the commit as `created`. `key` is gone afterwards. The layer is durable before `name` is there,
   * unless the driver was opened with a lower `durability`.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the name is taken, by a snapshot of any kind
   * @throws {SnapshotError} NOT_FOUND if the key, or a given parent, is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it would be a base that holds a whiteout (a character device 0/0), which shows
   *   where the base is mounted by itself and is hidden below a workspace
   * @throws {SnapshotError} FAILED_PRECONDITION if the key is not active, a given parent is not committed, or the layer
   *   is in use and `inUse` is `refuse`
   * @throws {SnapshotError} INVALID_ARGUMENT if the key has a parent, and another one is given
   * @throws {SnapshotError} DATA_LOSS if the layer is missing, or the disk failed while it was written
   */
  commit(name: string, key: string, options?: CommitOptions): Promise<Info>;

  /**
   * Copies what the active snapshot `key` holds now into the committed snapshot `name`, with the same parent. `key`
   * stays active, with its layer and its mounts; this may be done any number of times. A file that is written to
   * meanwhile is copied as it was at one moment; files are not all of the same moment.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the name is taken, by a snapshot of any kind
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is a base that holds a whiteout, as for `commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if the key is not active, or a file keeps getting shorter while it is
   *   read
   * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is no space for the copy
   * @throws {SnapshotError} DATA_LOSS if the layer is missing, or the disk failed while it was written
   */
  checkpoint(name: string, key: string, options?: CheckpointOptions): Promise<Info>;

  /**
   * Removes an active snapshot or a view, and what was written to it. Resolves after the attempt to delete its
   * directory, unless the driver was opened to do that later (`asyncRemove`).
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed
   */
  remove(key: string, options?: Waiting): Promise<RemoveResult>;

  /**
   * Deletes a committed snapshot, and its directory as `remove` does.
   *
   * @throws {SnapshotError} NOT_FOUND if the name is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it has children or is not committed
   */
  delete(name: string, options?: Waiting): Promise<RemoveResult>;

  /**
   * The name of the parent, or `null` for a base.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  parent(keyOrName: string): Promise<string | null>;

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): Promise<boolean>;

  /**
   * Everything that is known of a snapshot of any kind.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   */
  stat(keyOrName: string): Promise<Info>;

  /**
   * Changes the labels of a snapshot of any kind. Without `fieldpaths`, or with `labels` among them, the given labels
   * replace all labels; the field path `labels.KEY` sets that one alone. An empty or absent value removes a label.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   * @throws {SnapshotError} INVALID_ARGUMENT if a field path is not of labels
   */
  update(keyOrName: string, options: UpdateOptions & Waiting, fieldpaths?: readonly string[]): Promise<Info>;

  /**
   * The space that the layer itself takes: for a committed snapshot as measured by the commit, for an active one as it
   * is now, for a view nothing.
   *
   * @throws {SnapshotError} NOT_FOUND if there is no such key or name
   * @throws {SnapshotError} DATA_LOSS if the layer of an active snapshot is missing
   */
  usage(keyOrName: string): Promise<Usage>;

  /**
   * Calls `fn` for every committed snapshot that matches any of the filters, parents before children, one after the
   * other. `fn` may call any method.
   *
   * @throws {SnapshotError} INVALID_ARGUMENT if a filter does not parse
   */
  walk(fn: (info: Info) => void | Promise<void>, ...filters: string[]): Promise<void>;

  /** Calls `fn` for every open snapshot, one after the other. `fn` may call any method. */
  active(fn: (info: Info) => void | Promise<void>): Promise<void>;

  /**
   * Every snapshot, of any kind, that matches any of the filters, parents before children. The iterator's `return` ends
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
   * Deletes the directories of removed snapshots that are still there, and what processes left behind that were killed:
   * copies under way, and workspaces that were to be thrown away after a command.
   */
  cleanup(options?: CleanupOptions): Promise<CleanupResult>;

  /**
   * Finishes what is under way and lets go of the store. A call that waits for a lock of another process waits one second
   * more, and then fails with `FAILED_PRECONDITION`. May be called more than once.
   */
  close(): Promise<void>;
}

/** What `OverlayDriver` offers beyond the contract of every snapshotter. */
export interface OverlaySnapshotter extends Snapshotter {
  /**
   * Mounts an open snapshot on a directory on which nothing is mounted yet.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is committed; if it is active, has a parent and is mounted already;
   *   if the target is missing, a symbolic link, not a directory or a mount already; or if the kernel refuses
   * @throws {SnapshotError} DATA_LOSS if a layer is missing, or the snapshot is volatile and the machine was restarted
   * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
   * @throws {SnapshotError} UNIMPLEMENTED if the kernel does not have the method that was asked for
   */
  mount(key: string, target: string, options?: MountCallOptions): Promise<void>;

  /**
   * Mounts an open snapshot on a file descriptor only: it appears in no mount table, and it ends at the latest with the
   * last process that holds it. The deletion of an active snapshot waits for it, but that of the layers below does not
   * see it: close it before these are removed, or attach it to a directory.
   *
   * @throws {SnapshotError} as `mount`
   */
  openMount(key: string, options?: MountCallOptions): Promise<DetachedMount>;

  /**
   * Undoes the topmost mount on a directory, if it is one of this store. Waits two seconds for what still uses it; with
   * `lazy` (default: false), takes it out of the file tree at once, and what uses it can go on.
   *
   * @throws {SnapshotError} FAILED_PRECONDITION if nothing of this store is mounted there, or it is in use
   */
  unmount(target: string, options?: { lazy?: boolean }): Promise<void>;

  /**
   * Measures and digests the layer of an active snapshot and makes it durable, for a commit within a transaction. What
   * is written to the layer afterwards is committed too, but it is not in the seal, and may not survive a power cut.
   *
   * @throws {SnapshotError} NOT_FOUND if the key is missing
   * @throws {SnapshotError} FAILED_PRECONDITION if it is not active
   * @throws {SnapshotError} DATA_LOSS if the layer is missing, or the disk failed while it was written
   */
  seal(key: string, options?: Watched): Promise<Seal>;

  /**
   * Runs `fn` in one transaction: everything that it does through `tx` is there afterwards, on disk too, or, if it
   * throws, nothing is. `fn` is called at most once and must not be asynchronous.
   *
   * @returns what `fn` returned, once that is durable
   * @throws what `fn` throws; {TypeError} if it is asynchronous
   */
  transaction<T>(fn: (tx: Transaction) => T): Promise<T>;

  /**
   * How a snapshot differs from its parent, or from another one, in the order of the paths. Both are mounted meanwhile,
   * read-only and in no mount table.
   *
   * @throws {TypeError} if an argument is of a wrong type
   * @throws {SnapshotError} NOT_FOUND if one of them is missing, or is removed meanwhile
   * @throws {SnapshotError} FAILED_PRECONDITION if one consists of more layers than overlayfs can stack (500)
   * @throws {SnapshotError} DATA_LOSS if a layer is missing
   * @throws {SnapshotError} PERMISSION_DENIED if this process may not mount
   */
  diff(keyOrName: string, options?: DiffOptions): AsyncGenerator<Change, void, undefined>;

  /**
   * The snapshot that a path under `snapshots/` belongs to, and its descendants. The path is absolute, or relative to
   * the root of the store.
   *
   * @throws {SnapshotError} NOT_FOUND if the path is not in this store, or belongs to no snapshot
   */
  owner(path: string): Promise<Owner>;

  /** How many entries the removal journal has: removals whose directory is still to be deleted. */
  pendingRemovals(): Promise<number>;

  /**
   * Checks the store while it is in use, and repairs it if asked to. What others are in the middle of is not reported as
   * damage.
   *
   * @throws as `checkStore`
   */
  check(options?: CheckOptions): Promise<Report>;

  /**
   * Writes a consistent copy of the database to a new file, while the store is in use. The copy is one file of mode
   * 0600, which needs no log beside it. It does not hold the layers.
   *
   * @throws {SnapshotError} ALREADY_EXISTS if the file exists
   * @throws {SnapshotError} FAILED_PRECONDITION if its directory is missing
   * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is no space for it
   * @throws {SnapshotError} DATA_LOSS if the database is damaged
   * @throws the reason of `signal`; then no file is left
   */
  backup(file: string, options?: BackupOptions): Promise<void>;

  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * What the function of a transaction works with: the methods of the driver, each returning at once. A call that throws
 * has changed nothing; the function may catch the error and go on. Once the function has returned, every call fails with
 * `FAILED_PRECONDITION`.
 */
export interface Transaction {
  /** @throws {SnapshotError} as `Snapshotter.prepare` */
  prepare(key: string, parent?: string | null, options?: PrepareOptions): Mount[];

  /** @throws {SnapshotError} as `Snapshotter.view` */
  view(key: string, parent?: string | null, options?: ViewOptions): Mount[];

  /**
   * Commits an active snapshot with the seal that `driver.seal(key)` returned. A key that was prepared in the same
   * transaction needs no seal.
   *
   * @throws {SnapshotError} as `Snapshotter.commit`
   * @throws {SnapshotError} FAILED_PRECONDITION if the seal is absent, or of another snapshot
   */
  commit(name: string, key: string, options?: SealedCommitOptions): Info;

  /** @throws {SnapshotError} as `Snapshotter.remove` */
  remove(key: string): void;

  /** @throws {SnapshotError} as `Snapshotter.delete` */
  delete(name: string): void;

  /** @throws {SnapshotError} as `Snapshotter.update` */
  update(keyOrName: string, options: UpdateOptions, fieldpaths?: readonly string[]): Info;

  /** @throws {SnapshotError} as `Snapshotter.stat` */
  stat(keyOrName: string): Info;

  /** Whether there is a snapshot of that key or name, of any kind. */
  exists(keyOrName: string): boolean;

  /** @throws {SnapshotError} as `Snapshotter.parent` */
  parent(keyOrName: string): string | null;
}

/** Options for cancelling a queued write. */
export interface Waiting {
  /**
   * Cancels a write that is still waiting: it does not begin, and the promise is rejected with the signal's reason. A
   * write that has begun is finished.
   */
  signal?: AbortSignal;
}

/** Options of `view`. */
export interface ViewOptions {
  labels?: Labels;
}

/** Options of `prepare`. */
export interface PrepareOptions extends ViewOptions {
  /**
   * Do not sync what is written to it through an overlay (default: false): faster, for work that can be thrown away.
   * After a crash of the machine such a snapshot is lost; the end of a process does it no harm.
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

/** How far an operation with a known total has come. */
export interface Tally {
  readonly done: number;
  readonly total: number;
}

/** Cancellation and progress for long operations. */
export interface Watched<Step = Progress> {
  /** Ends the operation: the promise is rejected with the signal's reason, nothing has changed, and nothing is left. */
  signal?: AbortSignal;
  /** Called now and then. What it throws ends the operation, as the signal does. */
  onProgress?: (progress: Step) => void;
}

/** Options of `commit`. */
export interface CommitOptions extends Watched {
  /** The labels of the committed snapshot. Those of the active one are not inherited. */
  labels?: Labels;
  /** The parent to give to a snapshot that was prepared without one (default: the parent of `key`). */
  parent?: string;
  /**
   * What to do if the layer is still mounted, or changes while it is committed, so that something may go on writing to
   * it: `allow` (default) commits it and says so in `Info.inUse`, `refuse` fails with `FAILED_PRECONDITION`, `copy`
   * commits a copy that nothing else can write to.
   */
  inUse?: 'allow' | 'refuse' | 'copy';
}

/** Options of `checkpoint`. */
export interface CheckpointOptions extends Watched {
  /** The labels of the committed snapshot. Those of the active one are not inherited. */
  labels?: Labels;
}

/** Options of `update`. */
export interface UpdateOptions {
  labels: Labels;
}

/** The result of `remove` and `delete`. */
export interface RemoveResult {
  /** Why the directory could not be deleted yet; it stays in the removal journal. */
  readonly deferred?: string;
}

/**
 * Options of `cleanup`. Progress is counted in removals. A signal ends it between two of them or within a large one, and
 * what is done stays done.
 */
export type CleanupOptions = Watched<Tally>;

/** The result of `cleanup`. */
export interface CleanupResult {
  /** How many journalled removals were carried out. */
  readonly removed: number;
  /** The removals that have to wait, and why. */
  readonly deferred: readonly { readonly path: string; readonly reason: string }[];
}

/**
 * How an overlay is mounted, the best method first: each layer by a file descriptor, which needs no escaping and has no
 * limit (Linux 6.13); each layer by a string (6.8); all layers in one string of at most 4,095 bytes, by mount(2); by the
 * program mount(8).
 */
export type MountMethod = 'descriptors' | 'strings' | 'mount(2)' | 'mount(8)';

/** Options of `mount` and `openMount`. */
export interface MountCallOptions {
  /** How to mount overlays (default: the best method that the kernel supports and the number of layers allows). */
  by?: MountMethod;
}

/** A mount that is nowhere in the file tree. */
export interface DetachedMount extends AsyncDisposable {
  /** Its root, as a path for this process and for processes that inherit the descriptor. */
  readonly path: string;
  readonly fd: number;
  /** Undoes it, unless something still has a file of it open. May be called more than once. */
  close(): Promise<void>;
}

/** A layer that has been measured, digested and made durable, ready to be committed. It fits that snapshot only. */
export interface Seal {
  readonly key: string;
  readonly id: number;
  readonly usage: Usage;
  /** As in `SnapshotRecord.seal`. */
  readonly digest: string;
  /** Whether something had the layer mounted, or it changed meanwhile. */
  readonly inUse: boolean;
}

/** Options of a commit within a transaction. */
export interface SealedCommitOptions {
  labels?: Labels | undefined;
  parent?: string | undefined;
  /** What to do if the layer was in use when it was sealed (default: `allow`). A transaction cannot copy. */
  inUse?: 'allow' | 'refuse';
  /** What `driver.seal(key)` returned; not needed for a key that was prepared in the same transaction. */
  seal?: Seal;
}

/** Options of `diff`. */
export interface DiffOptions {
  /** What to compare with (default: the parent): a snapshot of any kind, or `null` for an empty tree. */
  against?: string | null;
  /**
   * Read the contents of all files whose size and time are equal (default: only of those whose times are whole seconds,
   * as archives set them).
   */
  contents?: boolean;
  /** Ends the comparison, which then throws the signal's reason. */
  signal?: AbortSignal;
}

/** How a file differs: `time` is that of its last modification, `attributes` are the extended ones. */
export type Difference =
  | 'type'
  | 'mode'
  | 'owner'
  | 'size'
  | 'time'
  | 'device'
  | 'target'
  | 'attributes'
  | 'contents';

/** A file in which one snapshot differs from another. */
export interface Change {
  readonly kind: 'added' | 'modified' | 'deleted';
  /**
   * Its path from the root of the snapshot, as in `/etc/hosts`, with a slash at the end for a directory. Bytes that are
   * not UTF-8 are shown as replacement characters.
   */
  readonly path: string;
  /** The same path, in bytes. */
  readonly rawPath: Buffer;
  /** What it is; if it was deleted, what it was. */
  readonly type:
    | 'file'
    | 'directory'
    | 'symbolic link'
    | 'fifo'
    | 'socket'
    | 'character device'
    | 'block device';
  /** The length of a regular file in bytes. */
  readonly size: number | null;
  /** How a modified file differs. */
  readonly differences: readonly Difference[];
}

/** The result of `owner`. */
export interface Owner {
  readonly snapshot: Info;
  /** All its descendants, in the order of creation. */
  readonly descendants: readonly Info[];
}

/** Options of `backup`. Progress is counted in bytes. */
export type BackupOptions = Watched<Tally>;

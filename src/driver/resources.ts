import { basename, join } from 'node:path';
import type { Database } from 'better-sqlite3';
import { SnapshotError } from '../errors.ts';
import { findOpenAncestor } from '../layers/ancestors.ts';
import { Directories } from '../layers/directories.ts';
import { toStoreError } from '../layers/disk-failure.ts';
import type { HeldRoot } from '../layers/held-root.ts';
import { Layers } from '../layers/layers.ts';
import type { Layout } from '../layers/layout.ts';
import { MountGate } from '../layers/mount-gate.ts';
import { Reaper } from '../layers/reaper.ts';
import { SnapshotsView } from '../layers/snapshots-view.ts';
import { StoreMounts } from '../layers/store-mounts.ts';
import { LayerSync } from '../layers/sync.ts';
import { needsUserxattr } from '../linux/probe.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { type BackedUpStore, RollingBackup } from '../metadata/backup/rolling.ts';
import { Closing } from '../metadata/closing.ts';
import { closeDatabase, openDatabase } from '../metadata/open.ts';
import { RemovalJournal } from '../metadata/removal-journal.ts';
import { RowReader } from '../metadata/row-reader.ts';
import { RowWriter } from '../metadata/row-writer.ts';
import { SpareSpace } from '../metadata/spare-space.ts';
import { StoreLock } from '../metadata/store-lock.ts';
import { Transactor } from '../metadata/transactor.ts';
import { WriteQueue } from '../metadata/write-queue.ts';
import { quote } from '../quote.ts';
import { Access } from './access.ts';
import { Chains } from './chains.ts';
import { MountTable } from './mount-table.ts';
import type { Settings } from './options.ts';
import { type Root, checkRestored, openRoot } from './root.ts';

/** What the parts of a driver share. */
export interface Resources {
  readonly settings: Settings;
  readonly layout: Layout;
  /** The root as it was when it was opened. */
  readonly held: HeldRoot;
  /** The way from a call to the database. */
  readonly access: Access;
  /** Whether the driver is being closed: for what waits for others. */
  readonly closing: Closing;
  /** Runs transactions: for the parts of one that is open. */
  readonly transactor: Transactor;
  readonly reader: RowReader;
  readonly writer: RowWriter;
  readonly journal: RemovalJournal;
  readonly chains: Chains;
  readonly mountTable: MountTable;
  /** Makes directories within a transaction. */
  readonly directories: Directories;
  /** Measures, seals, copies and syncs layers outside of transactions. */
  readonly layers: Layers;
  /** Finds what is mounted of the store. */
  readonly mounts: StoreMounts;
  /** Keeps deletions from looking for mounts while one is being made. */
  readonly gate: MountGate;
  /** Deletes what the removal journal names. */
  readonly reaper: Reaper;
  close(): Promise<void>;
}

/**
 * Opens a root with its database.
 *
 * @throws {SnapshotError} as `OverlayDriver.open`
 */
export async function openResources(path: unknown, settings: Settings): Promise<Resources> {
  const root = openRoot(path);
  warnOfPlace(root.held.layout);
  let lock: StoreLock | undefined;
  let db: Database | undefined;
  try {
    const { layout } = root.held;
    lock = await StoreLock.share(layout.root, settings.busyTimeout);
    // A restoration that had it alone until now may have been interrupted.
    checkRestored(layout);
    db = await openDatabaseOf(root.held, settings);
    root.held.check();
    return connect(settings, { root, lock, db, userxattr: await needsUserxattr() });
  } catch (error) {
    db?.close();
    lock?.release();
    const failure = toStoreError(error, `opening the root ${quote(root.held.layout.root)}`, root.held);
    root.held.close();
    throw failure;
  }
}

/** The roots that were warned of in this process. */
const warned = new Set<string>();

/** Warns, once for each root, if somebody else can replace it. What is there by then is not trusted, so it can be opened. */
function warnOfPlace({ root }: Layout): void {
  const found = findOpenAncestor(root);
  if (found === undefined || warned.has(root)) return;
  warned.add(root);
  process.emitWarning(
    `somebody else can put something else in the place of ${quote(root)}, in ${quote(found.path)}: ${found.why}`,
    'OverliteWarning',
  );
}

/** Opens the database. On a full disk even that may take the spare space. */
async function openDatabaseOf(held: HeldRoot, { busyTimeout }: Settings): Promise<Database> {
  const open = (): Promise<Database> =>
    openDatabase(held.layout.database, {
      readonly: false,
      busyTimeout,
      backups: () => fdPath(held.make('backups')),
    });
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof SnapshotError && error.code === 'RESOURCE_EXHAUSTED')) throw error;
    SpareSpace.free(spareSpaceOf(held));
    return open();
  }
}

/** The store as rolling backups need it. */
function backedUp(held: HeldRoot): BackedUpStore {
  return {
    database: held.layout.database,
    check: () => held.check(),
    openBackups: () => held.make('backups'),
  };
}

/** The path of the spare space below the held root. */
function spareSpaceOf(held: HeldRoot): string {
  return join(fdPath(held.fd), basename(held.layout.spareSpace));
}

/** What was opened of a store. */
interface Opened {
  readonly root: Root;
  readonly lock: StoreLock;
  readonly db: Database;
  /** Whether overlays need the option `userxattr`. */
  readonly userxattr: boolean;
}

function connect(settings: Settings, { root, lock, db, userxattr }: Opened): Resources {
  const { held, filesystem } = root;
  const { layout } = held;
  const { ordered } = filesystem;
  const { busyTimeout, durability, seal, onTransaction } = settings;
  const durable = durability === 'full';
  const mountTable = new MountTable(layout, settings, userxattr);
  const directories = new Directories(held, {
    sync: durable ? (ordered ? 'last' : 'each') : 'none',
    ownAttributes: mountTable.ownAttributes,
  });
  const transactor = new Transactor(db, directories);
  const reader = new RowReader(db);
  const writer = new RowWriter(db, reader);
  const spareSpace = new SpareSpace(spareSpaceOf(held));
  const closing = new Closing();
  const queue = new WriteQueue(db, transactor, { busyTimeout, spareSpace, closing, onTransaction });
  const access = new Access(root.held, queue, busyTimeout, closing);
  const journal = new RemovalJournal(reader, writer, queue);
  const snapshotsView = new SnapshotsView(held);
  const sync = durable ? new LayerSync({ root: held, snapshotsView, ordered, reader }) : undefined;
  const mounts = new StoreMounts(held);
  const gate = new MountGate(held);
  const layers = new Layers({
    root: held,
    snapshotsView,
    mounts,
    sync,
    contents: seal === 'content',
    reader,
  });
  const reaper = new Reaper({ journal, root: held, mounts, gate });
  const backups = settings.backups && new RollingBackup(backedUp(held), settings.backups);
  return {
    settings,
    layout,
    held,
    access,
    closing,
    transactor,
    reader,
    writer,
    journal,
    chains: new Chains(reader, transactor, mountTable.separator),
    mountTable,
    directories,
    layers,
    mounts,
    gate,
    reaper,
    async close() {
      await Promise.all([access.close(), backups?.close()]);
      await reaper.close();
      await queue.idle();
      snapshotsView.close();
      closeDatabase(db);
      lock.release();
      held.close();
    },
  };
}

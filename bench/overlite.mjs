// overlite's side: the operations of the library as it is published.
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayDriver } from '../dist/index.js';
import { MetadataStore } from '../dist/metadata/index.js';
import { digest, isActive, key, labels, parentOf, some } from './data.mjs';
import { measure, settleDisk } from './measure.mjs';

/** Durability of the metadata alone, which is what the others give. */
const metadata = { durability: 'metadata', asyncRemove: true, backups: false };
const full = { ...metadata, durability: 'full' };

/** So many writes let the write-ahead log be used from its beginning again, as in a service that has run for a while. */
const SETTLING_WRITES = 150;

/** How many snapshots are made in one transaction of the fill. */
const BATCH = 2000;

/**
 * Fills a store with so many snapshots: rows through the library, in large transactions, and the same directories that
 * as many single calls would have made.
 */
async function fill(root, count, { directories = true } = {}) {
  mkdirSync(join(root, 'snapshots'), { recursive: true, mode: 0o700 });
  const store = await MetadataStore.open(join(root, 'metadata.db'));
  try {
    for (let from = 0; from < count; from += BATCH) {
      store.transaction(() => {
        for (let i = from; i < Math.min(count, from + BATCH); i += 1) {
          const { id } = makeRow(store, i);
          if (directories) makeDirectories(join(root, 'snapshots', String(id)), isActive(i));
        }
      });
    }
  } finally {
    store.close();
  }
}

function makeRow(store, i) {
  if (isActive(i)) return store.prepare(key(i), parentOf(i), { labels: labels(i) });
  store.prepare('in work', parentOf(i));
  const usage = { size: 4096 * (i % 1000), inodes: i % 50 };
  const seal = `metadata1:${digest(some(i, 2 ** 31)).slice(7)}`;
  const record = store.commit(key(i), 'in work', { labels: labels(i), usage, seal, inUse: false });
  store.forget([{ id: record.id, part: 'work' }]);
  return record;
}

function makeDirectories(directory, active) {
  mkdirSync(directory, 0o700);
  mkdirSync(join(directory, 'fs'), 0o755);
  if (active) mkdirSync(join(directory, 'work'), 0o711);
}

/** Measures on a store of so many snapshots. Nothing that others measure after it is deleted before the end. */
export class StoreSide {
  root;
  count;
  #options;
  #number = 0;

  constructor(root, count, options) {
    this.root = root;
    this.count = count;
    this.#options = options;
  }

  async make() {
    mkdirSync(this.root, { mode: 0o700 });
    await fill(this.root, this.count);
  }

  /** How large the database is, in bytes. */
  get databaseBytes() {
    return statSync(join(this.root, 'metadata.db')).size;
  }

  /** Everything that is measured at equal durability. */
  async atMetadata(wants) {
    settleDisk();
    const driver = await OverlayDriver.open(this.root, metadata);
    try {
      return [...(await this.#writes(driver, wants)), ...(await this.#reads(driver, wants))];
    } finally {
      await driver.close();
    }
  }

  /** The writes, at full durability. */
  async atFull(wants) {
    settleDisk();
    const driver = await OverlayDriver.open(this.root, full);
    try {
      return await this.#writes(driver, wants);
    } finally {
      await driver.close();
    }
  }

  /** Removals that delete the directory before they resolve, and cleanups. */
  async deleting(wants) {
    return [...(await this.#removals(wants)), ...(await this.#cleanups(wants))];
  }

  async #removals(wants) {
    const name = this.#name('remove-and-delete');
    if (!wants(name)) return [];
    settleDisk();
    const driver = await OverlayDriver.open(this.root, { ...metadata, asyncRemove: false });
    try {
      // What the deferred removals have left would be deleted meanwhile.
      await driver.cleanup();
      const before = () => driver.prepare('gone', this.#parent(), { labels: labels(this.#number) });
      return [await this.#measure(name, () => driver.remove('gone'), { before })];
    } finally {
      await driver.close();
    }
  }

  async #cleanups(wants) {
    const name = this.#name('cleanup');
    if (!wants(name)) return [];
    const driver = await OverlayDriver.open(this.root, metadata);
    try {
      await driver.cleanup();
      return [await this.#measure(name, () => driver.cleanup())];
    } finally {
      await driver.close();
    }
  }

  async opening(wants) {
    const name = this.#name('open');
    if (!wants(name)) return [];
    let driver;
    const open = async () => {
      driver = await OverlayDriver.open(this.root, metadata);
    };
    return [await this.#measure(name, open, { after: () => driver.close() })];
  }

  async #writes(driver, wants) {
    const figures = [];
    const add = async (operation, run, options) => {
      const name = this.#name(operation);
      if (wants(name)) figures.push(await this.#measure(name, run, options));
    };
    if (['prepare', 'view', 'commit', 'remove'].some((operation) => wants(this.#name(operation)))) {
      await this.#settleLog(driver);
    }
    const make = () => driver.prepare('new', this.#parent(), { labels: labels(this.#number) });
    await add('prepare', make, { after: () => driver.remove('new') });
    await add('view', () => driver.view('new', this.#parent(), { labels: labels(this.#number) }), {
      after: () => driver.remove('new'),
    });
    await add('commit', () => driver.commit('newer', 'new', { labels: labels(this.#number) }), {
      before: make,
      after: () => driver.delete('newer'),
    });
    await add('remove', () => driver.remove('new'), { before: make });
    return figures;
  }

  async #reads(driver, wants) {
    const figures = [];
    const add = async (operation, run, options) => {
      const name = this.#name(operation);
      if (wants(name)) figures.push(await this.#measure(name, run, options));
    };
    const count = this.count;
    const middle = count / 2;
    const list = (expected, ...filters) => {
      return async () => {
        let found = 0;
        for await (const info of driver.snapshots(...filters)) found += Number(info.id > 0);
        if (found !== expected) throw new Error(`${filters.join()}: ${found} and not ${expected}`);
      };
    };
    await add('stat', () => driver.stat(key(some((this.#number += 1), count))));
    await add('parent', () => driver.parent(key(some((this.#number += 1), count))));
    await add('mounts', () => driver.mounts(key(9 + 10 * some((this.#number += 1), count / 10))));
    await add('list-name', list(1, `name=="${key(middle)}"`));
    await add('list-parent', list(1, `parent=="${key(middle)}"`));
    await add('list-label', list(1, `labels."containerd.io/snapshot.ref"==${digest(middle)}`));
    await add('list-hundredth', list(count / 100, 'labels.l==7'));
    await add('list-all', list(count), { least: 7 });
    return figures;
  }

  async #settleLog(driver) {
    for (let i = 0; i < SETTLING_WRITES; i += 1) {
      await driver.prepare('settling', this.#parent());
      await driver.remove('settling');
    }
  }

  /** The committed snapshot that the next one stands on, at the top of another chain each time. */
  #parent() {
    this.#number += 1;
    return key(8 + 10 * (this.#number % (this.count / 10)));
  }

  #name(operation) {
    return `${operation}@${this.count}`;
  }

  #measure(name, run, options) {
    return measure(name, run, { ...options, quick: this.#options.quick });
  }
}

/** Mounts and prepares on chains of 1 to 500 layers. */
export async function depths(root, depthList, options, wants) {
  settleDisk();
  const driver = await OverlayDriver.open(root, metadata);
  const figures = [];
  try {
    for (let depth = 1; depth <= Math.max(...depthList); depth += 1) {
      await driver.prepare('in work', depth === 1 ? null : `c${depth - 1}`);
      await driver.commit(`c${depth}`, 'in work');
    }
    for (const depth of depthList) {
      await driver.prepare(`a${depth}`, `c${depth}`);
      const mounts = `mounts@depth${depth}`;
      if (wants(mounts)) figures.push(await measure(mounts, () => driver.mounts(`a${depth}`), options));
      const prepare = `prepare@depth${depth}`;
      const after = () => driver.remove('new');
      if (wants(prepare)) {
        figures.push(await measure(prepare, () => driver.prepare('new', `c${depth}`), { ...options, after }));
      }
    }
    return figures;
  } finally {
    await driver.close();
  }
}

/** Usage and commit of a layer of 1,000 small files in twenty directories. */
export async function files(root, durability, options, wants) {
  settleDisk();
  const driver = await OverlayDriver.open(root, durability === 'full' ? full : metadata);
  const figures = [];
  let number = 0;
  const make = async (parent) => {
    number += 1;
    await driver.prepare(`u${number}`, parent);
    const { directory } = await driver.stat(`u${number}`);
    for (let i = 0; i < 1000; i += 1) {
      mkdirSync(join(directory, 'fs', `d${i % 20}`), { recursive: true });
      writeFileSync(join(directory, 'fs', `d${i % 20}`, String(i)), 'x');
    }
  };
  const addCommit = async (name, parent) => {
    if (!wants(name)) return;
    const before = async () => {
      await make(parent);
      for (let i = 0; i < 5; i += 1) await driver.usage(`u${number}`);
    };
    const commit = () => driver.commit(`c${number}`, `u${number}`);
    figures.push(await measure(name, commit, { ...options, before, least: 10, quick: true }));
  };
  try {
    if (wants('usage@files1000')) {
      await make();
      figures.push(await measure('usage@files1000', () => driver.usage(`u${number}`), options));
    }
    await driver.prepare('in work');
    await driver.commit('base', 'in work');
    await addCommit('commit@files1000', 'base');
    await addCommit('commit-base@files1000', null);
    return figures;
  } finally {
    await driver.close();
  }
}

/** What one of 64 prepares at once takes. */
export async function atOnce(root, durability, options, wants) {
  if (!wants('prepare@once64')) return [];
  settleDisk();
  const driver = await OverlayDriver.open(root, durability === 'full' ? full : metadata);
  try {
    await driver.prepare('in work');
    await driver.commit('base', 'in work');
    let round = 0;
    const run = () => {
      round += 1;
      return Promise.all(Array.from({ length: 64 }, (_, i) => driver.prepare(`c-${round}-${i}`, 'base')));
    };
    return [await measure('prepare@once64', run, { ...options, per: 64, least: 20 })];
  } finally {
    await driver.close();
  }
}

/**
 * How much memory a process takes at the most that walks a store of so many, in bytes, and how long the walk takes, in
 * milliseconds.
 */
export async function walkMany(root, count) {
  mkdirSync(root, { mode: 0o700 });
  await fill(root, count, { directories: false });
  settleDisk();
  const walker = new URL('walk.mjs', import.meta.url).pathname;
  const output = execFileSync(process.execPath, [walker, root, String(count)], { encoding: 'utf8' });
  return { ...JSON.parse(output), databaseBytes: statSync(join(root, 'metadata.db')).size };
}

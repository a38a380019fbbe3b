// The design that overlite replaces: a directory for each snapshot, named after the hash of its key or name, a symbolic
// link to its parent, a file with its name, and links that were read once kept in memory. It has four operations and
// makes nothing durable.
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { isActive, key, parentOf, some } from './data.mjs';
import { measure, settleDisk } from './measure.mjs';

const hash = (name) => createHash('sha256').update(name).digest('hex');

class Predecessor {
  #snapshots;
  #active;
  #parents = new Map();

  constructor(root) {
    this.#snapshots = join(root, 'snapshots');
    this.#active = join(root, 'active');
    for (const path of [this.#snapshots, this.#active]) mkdirSync(path, { recursive: true, mode: 0o700 });
  }

  prepare(name, parent) {
    const path = this.#pathOf(name);
    for (const part of ['work', 'fs']) mkdirSync(join(path, part), { recursive: true, mode: 0o700 });
    if (parent) symlinkSync(join(this.#snapshots, hash(parent)), join(path, 'parent'));
    return this.mounts(name);
  }

  mounts(name) {
    const path = this.#pathOf(name);
    const lowers = [];
    for (let at = this.#parentOf(path); at !== undefined; at = this.#parentOf(at))
      lowers.push(join(at, 'fs'));
    if (lowers.length === 0) {
      return [{ type: 'bind', source: join(path, 'fs'), options: ['rw', 'rbind'] }];
    }
    const options = [
      `workdir=${join(path, 'work')}`,
      `upperdir=${join(path, 'fs')}`,
      `lowerdir=${lowers.join(':')}`,
    ];
    return [{ type: 'overlay', source: 'overlay', options }];
  }

  commit(name, active) {
    const path = this.#pathOf(active);
    rmSync(join(path, 'work'), { recursive: true, force: true });
    writeFileSync(join(path, 'name'), name, { mode: 0o644 });
    this.#parents.delete(path);
    renameSync(path, join(this.#snapshots, hash(name)));
  }

  parent(name) {
    const path = this.#parentOf(join(this.#snapshots, hash(name)));
    return path === undefined ? '' : readFileSync(join(path, 'name'), 'utf8');
  }

  #pathOf(name) {
    return join(this.#active, hash(name));
  }

  #parentOf(path) {
    let parent = this.#parents.get(path);
    if (parent === undefined) {
      try {
        parent = readlinkSync(join(path, 'parent'));
      } catch (error) {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      }
      this.#parents.set(path, parent);
    }
    return parent;
  }
}

/** Measures the predecessor's operations on a store of so many. */
export async function predecessor(root, count, options, wants) {
  const store = new Predecessor(root);
  const figures = [];
  const add = async (operation, run, more) => {
    const name = `${operation}@${count}`;
    if (wants(name)) figures.push(await measure(name, run, { ...options, ...more }));
  };
  for (let i = 0; i < count; i += 1) {
    store.prepare(isActive(i) ? key(i) : 'in work', parentOf(i));
    if (!isActive(i)) store.commit(key(i), 'in work');
  }
  settleDisk();
  let number = 0;
  const parent = () => key(8 + 10 * ((number += 1) % (count / 10)));
  await add('prepare', async () => store.prepare(`new-${number}`, parent()));
  await add('commit', async () => store.commit(`newest-${number}`, 'newer'), {
    before: () => void store.prepare('newer', parent()),
  });
  await add('mounts', async () => store.mounts(key(9 + 10 * some((number += 1), count / 10))));
  await add('parent', async () => store.parent(key(some((number += 1), count))));
  return figures;
}

/** Measures how long the predecessor takes to tell the mounts of chains of 1 to 500 layers. */
export async function predecessorDepths(root, depthList, options, wants) {
  const store = new Predecessor(root);
  const figures = [];
  for (let depth = 1; depth <= Math.max(...depthList); depth += 1) {
    store.prepare('in work', depth === 1 ? undefined : `c${depth - 1}`);
    store.commit(`c${depth}`, 'in work');
  }
  for (const depth of depthList) {
    store.prepare(`a${depth}`, `c${depth}`);
    const name = `mounts@depth${depth}`;
    if (wants(name)) figures.push(await measure(name, async () => store.mounts(`a${depth}`), options));
  }
  return figures;
}

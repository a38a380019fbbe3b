// What the operations cannot do without, each by itself.
import {
  closeSync,
  fdatasyncSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import BetterSqlite3 from 'better-sqlite3';
import { key, some } from './data.mjs';
import { measure, settleDisk } from './measure.mjs';

/** What a write adds to the log: eight pages, each with its header. */
const LOG_BYTES = 8 * (4096 + 24);

export async function floors(root, storeRoot, options, wants) {
  mkdirSync(root, { mode: 0o700 });
  settleDisk();
  const figures = [];
  const add = async (name, run, more) => {
    if (wants(name)) figures.push(await measure(name, run, { ...options, ...more }));
  };
  await addSyncs(root, add);
  await addDirectories(root, add);
  await add('floor/turn', () => nextTurn());
  await addStatements(join(storeRoot, 'metadata.db'), add);
  return figures;
}

/** Writes over a file that has its space, as a log that is used again is. */
async function addSyncs(root, add) {
  const fd = openSync(join(root, 'log'), 'w');
  try {
    const frames = Buffer.alloc(LOG_BYTES, 'x');
    for (let i = 0; i < 100; i += 1) writeSync(fd, frames, 0, LOG_BYTES, i * LOG_BYTES);
    fsyncSync(fd);
    let at = 0;
    const write = () => writeSync(fd, frames, 0, LOG_BYTES, ((at += 1) % 100) * LOG_BYTES);
    const sync = (call) => async () => {
      write();
      call(fd);
    };
    await add('floor/fdatasync', sync(fdatasyncSync));
    await add('floor/fsync', sync(fsyncSync));
    let number = 0;
    const make = (call) => async () => {
      number += 1;
      makeThree(root, number);
      write();
      call(fd);
    };
    await add('floor/mkdirs+fdatasync', make(fdatasyncSync));
    await add('floor/mkdirs+fsync', make(fsyncSync));
  } finally {
    closeSync(fd);
  }
}

function makeThree(root, number) {
  mkdirSync(join(root, String(number)), 0o700);
  mkdirSync(join(root, String(number), 'fs'), 0o755);
  mkdirSync(join(root, String(number), 'work'), 0o711);
}

async function addDirectories(root, add) {
  let number = 1e6;
  await add('floor/mkdirs', async () => makeThree(root, (number += 1)));
  const tree = join(root, 'tree');
  for (let i = 0; i < 1000; i += 1) {
    mkdirSync(join(tree, `d${i % 20}`), { recursive: true });
    writeFileSync(join(tree, `d${i % 20}`, String(i)), 'x');
  }
  await add('floor/lstat1000', async () => {
    for (const directory of readdirSync(tree)) {
      lstatSync(join(tree, directory));
      for (const file of readdirSync(join(tree, directory))) lstatSync(join(tree, directory, file));
    }
  });
}

async function addStatements(file, add) {
  const db = new BetterSqlite3(file, { readonly: true });
  try {
    const count = Number(db.prepare('select count(*) from snapshot').pluck().get());
    const one = db.prepare('select id from snapshot where name = ?').pluck();
    let number = 0;
    await add('floor/statement', async () => one.get(key(some((number += 1), count))));
    const all = db.prepare('select id, name, kind, parent_id, created_us, updated_us from snapshot').raw();
    await add(`floor/rows@${count}`, async () => all.all(), { least: 7 });
  } finally {
    db.close();
  }
}

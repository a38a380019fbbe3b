// Works on a root in several lanes at once, and keeps a log of what it is about to do and of what it was told has been
// done. The log is outside the store, each line of it written before the next thing is begun.
// usage: node workload.mjs PLAN (JSON of `Plan` in oracle.ts)
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  openSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
  chmodSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import Database from 'better-sqlite3';
import koffi from 'koffi';
import { readTree } from './read-tree.mjs';

const plan = JSON.parse(process.argv[2]);

if (plan.synchronous === 'normal') {
  // The real database, only weaker than the driver asks it to be.
  const asked = Reflect.get(Database.prototype, 'pragma');
  Database.prototype.pragma = function weaker(source, options) {
    return Reflect.apply(asked, this, [
      source === 'synchronous = full' ? 'synchronous = normal' : source,
      options,
    ]);
  };
}
const { OverlayDriver } = await import('../../dist/index.js');

// The log of a machine that is cut off as a whole has to leave it first.
const log = openSync(plan.log, plan.machine ? 'as' : 'a');
const note = (entry) => writeSync(log, `${JSON.stringify(entry)}\n`);

/** Numbers that the seed decides, by the generator known as mulberry32. */
function numbersFrom(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

const driver = await OverlayDriver.open(plan.root, { durability: plan.durability });
const wal = `${plan.root}/metadata.db-wal`;
const own = new Database(`${plan.root}/metadata.db`, { timeout: 1000 });
let restarts = 0;
let operations = 0;

/** Lets the WAL be used from its beginning again: the sync of one that grows would carry more than it has to. */
function restartWal() {
  try {
    const [{ busy }] = own.pragma('wal_checkpoint(restart)');
    if (busy === 0) restarts += 1;
  } catch {
    // Another process is writing.
  }
}

/** Cuts the power of the disk right now, with nothing written that was not. */
function cut() {
  if (plan.machine) {
    // Whoever reads the log cuts the power.
    note({ cut: true });
    process.kill(process.pid, 'SIGSTOP');
  }
  const ioctl = koffi.load(null).func('int ioctl(int fd, unsigned long request, const uint32_t *flags)');
  const GOING_DOWN = 0x8004587d;
  const NO_LOG_FLUSH = 2;
  ioctl(openSync(plan.disk, 'r'), GOING_DOWN, Buffer.from(Uint32Array.of(NO_LOG_FLUSH).buffer));
  process.kill(process.pid, 'SIGKILL');
}

/** Does something that is to be judged: the change is what must be there afterwards, or else nothing of it. */
async function perform(kind, change, action) {
  operations += 1;
  const operation = `${plan.name}/${operations}`;
  note({ operation, kind, change });
  try {
    await action();
  } catch (error) {
    note({ operation, refused: error.code ?? String(error) });
    throw error;
  }
  note({ operation, done: true, wal: statSync(wal).size, restarts });
  if (plan.cutAfter?.kind === kind && (plan.cutAfter.count -= 1) === 0) cut();
}

/** Writes some files into a layer. */
function fill(directory, random) {
  const stamp = () => 1_500_000_000 + random(100_000_000);
  const folders = ['.', 'd', 'd/e'].slice(0, 1 + random(3));
  for (const folder of folders) mkdirSync(`${directory}/${folder}`, { recursive: true });
  const count = 1 + random(10);
  for (let i = 0; i < count; i += 1) {
    const file = `${directory}/${folders[random(folders.length)]}/f${random(1000)}`;
    const size = [0, 1, random(4096), random(65_536), random(12) === 0 ? 1_000_000 : random(20_000)][
      random(5)
    ];
    switch (random(8)) {
      case 0:
        symlinkSync(`target ${random(100)}`, `${file}-link`);
        break;
      case 1:
        writeFileSync(file, randomBytes(size));
        try {
          linkSync(file, `${file}-again`);
        } catch {
          // It is there from before.
        }
        break;
      case 2:
        writeFileSync(file, randomBytes(100));
        truncateSync(file, 200_000 + size);
        break;
      case 3:
        // As many programs append to their logs.
        for (let line = 0; line < 5; line += 1) appendFileSync(file, randomBytes(size / 5));
        break;
      default:
        writeFileSync(file, randomBytes(size));
        chmodSync(file, [0o644, 0o600, 0o755, 0o4755][random(4)]);
        if (random(2) === 0) utimesSync(file, stamp(), stamp() + 0.25);
    }
  }
}

const mounted = new Map();

/** Writes into a layer by itself, or through an overlay that stays mounted. */
async function write(key, random) {
  const { directory } = await driver.stat(key);
  let target = mounted.get(key);
  if (plan.mount && target === undefined && random(4) === 0) {
    const [{ type, source, options }] = await driver.mounts(key);
    target = `${plan.mount}/${key}`;
    mkdirSync(target);
    spawnSync('mount', ['-t', type, source, target, '-o', options.join(',')]);
    mounted.set(key, target);
  }
  fill(target ?? `${directory}/fs`, random);
  return `${directory}/fs`;
}

const committedHere = [];
const parents = new Set();
const others = [];
if (plan.shared) await driver.walk(({ name }) => void others.push(name));

/** One thing after the other, until the power or the process is cut, or something fails. */
async function lane(number) {
  const random = numbersFrom(plan.seed * 31 + number);
  const name = `${plan.name}-${number}`;
  const active = [];
  let count = 0;
  const pick = (list) => list[random(list.length)];
  const entry = (kind, parent, labels, tree) => ({ kind, parent, labels, ...(tree && { tree }) });
  const labelsOf = () => (random(2) === 0 ? {} : { lane: name, n: `${count}` });
  for (;;) {
    count += 1;
    const fresh = `${name}-${count}`;
    const labels = labelsOf();
    const key = active.at(-1);
    switch (random(12)) {
      case 0:
      case 1:
      case 2: {
        const parent = random(3) === 0 ? null : (pick([...committedHere, ...others]) ?? null);
        if (parent !== null) parents.add(parent);
        // After a restart of the machine, these would be lost, as they should be.
        const volatile = random(3) === 0 && !plan.machine;
        await perform('prepare', { add: { [fresh]: entry('active', parent, labels) } }, () =>
          driver.prepare(fresh, parent, { labels, volatile }),
        );
        active.push({ key: fresh, parent });
        break;
      }
      case 3: {
        const parent = pick(committedHere) ?? null;
        if (parent !== null) parents.add(parent);
        await perform('view', { add: { [fresh]: entry('view', parent, labels) } }, () =>
          driver.view(fresh, parent, { labels }),
        );
        await perform('remove', { remove: [fresh] }, () => driver.remove(fresh));
        break;
      }
      case 4:
      case 5:
      case 6: {
        if (key === undefined) break;
        const tree = readTree(await write(key.key, random));
        active.pop();
        const change = { add: { [fresh]: entry('committed', key.parent, labels, tree) }, remove: [key.key] };
        await perform('commit', change, () => driver.commit(fresh, key.key, { labels }));
        committedHere.push(fresh);
        break;
      }
      case 7:
      case 8: {
        if (key === undefined) break;
        const tree = readTree(await write(key.key, random));
        const change = { add: { [fresh]: entry('committed', key.parent, labels, tree) } };
        await perform('checkpoint', change, () => driver.checkpoint(fresh, key.key, { labels }));
        committedHere.push(fresh);
        break;
      }
      case 9: {
        if (active.length < 2) break;
        const { key: gone } = active.shift();
        await perform('remove', { remove: [gone] }, () => driver.remove(gone));
        break;
      }
      case 10: {
        const index = committedHere.findIndex((leaf) => leaf.startsWith(`${name}-`) && !parents.has(leaf));
        if (index < 0 || committedHere.length < 4) break;
        const [gone] = committedHere.splice(index, 1);
        if (plan.shared) {
          // Others may have built on it.
          await perform('update', { labels: { [gone]: labels } }, () => driver.update(gone, { labels }));
          committedHere.push(gone);
        } else {
          await perform('delete', { remove: [gone] }, () => driver.delete(gone));
        }
        break;
      }
      default: {
        if (key === undefined) break;
        const tree = readTree(await write(key.key, random));
        const seal = await driver.seal(key.key);
        const next = `${fresh}-next`;
        active.pop();
        const change = {
          add: {
            [fresh]: entry('committed', key.parent, labels, tree),
            [next]: entry('active', fresh, {}),
          },
          remove: [key.key],
        };
        parents.add(fresh);
        await perform('transaction', change, () =>
          driver.transaction((tx) => {
            tx.commit(fresh, key.key, { seal, labels });
            tx.prepare(next, fresh);
          }),
        );
        committedHere.push(fresh);
        active.push({ key: next, parent: fresh });
      }
    }
    if (random(6) === 0) restartWal();
    if (random(25) === 0) await driver.cleanup();
  }
}

if (plan.dirty) writeFileSync(plan.dirty, Buffer.alloc(128 * 1024 * 1024, 'x'));
restartWal();
note({ ready: true });
const lanes = Array.from({ length: plan.lanes }, (_, number) => lane(number));
await Promise.allSettled(lanes);
// Whatever comes now is another's: the power is off.
process.kill(process.pid, 'SIGKILL');

// Measures overlite, and beside it what it is compared with. usage: npm run bench [-- OPTIONS]
//
//   --quick          two sizes of stores and a short look at each operation
//   --only REGEXP    only the operations whose name matches, such as ^prepare or @100000$
//   --peer           containerd's side too, on the same filesystem in turn
//   --root DIRECTORY where to make the stores; on a real disk, or the figures say nothing
//   --out DIRECTORY  where to write bench.json and growth.svg; bench/results unless given
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { floors } from './floor.mjs';
import { drawGrowth } from './growth-chart.mjs';
import { machine } from './machine.mjs';
import { combine } from './measure.mjs';
import { mounting } from './mounting.mjs';
import { depthList, rowsFor, sizes } from './operations.mjs';
import { StoreSide, atOnce, depths, files, walkMany } from './overlite.mjs';
import { buildPeer, measurePeer } from './peer.mjs';
import { predecessor, predecessorDepths } from './predecessor.mjs';
import { judge, printReport } from './report.mjs';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    peer: { type: 'boolean', default: false },
    root: { type: 'string', default: tmpdir() },
    out: { type: 'string', default: new URL('results', import.meta.url).pathname },
  },
});

/** How often the sides, and stores of different sizes, take turns. */
const TURNS = options.quick ? 1 : 3;
const LARGE = 10_000;
const MANY = 1_000_000;

/** The largest store that the predecessor is measured on: it makes each snapshot by itself. */
const PREDECESSOR_MOST = 10_000;

const only = new RegExp(options.only);
const counts = options.quick ? sizes.quick : sizes.full;
const rows = rowsFor(counts).filter(({ name }) => only.test(name));
const rowNames = new Set(rows.map(({ name }) => name));
/** Whether a figure is wanted: those of the rows, and what has no row to be in. */
const wants = (name) => rowNames.has(name) || (!/^[a-z-]+@\d+$/.test(name) && only.test(name));

const directory = mkdtempSync(join(options.root, 'overlite-bench-'));
/** Where each is that was measured. Nothing of it is deleted before the end, since ext4 is slow to use again what was. */
let places = 0;
const place = () => join(directory, String((places += 1)));
spreadOut(directory);
const program = options.peer ? buildPeer(directory) : undefined;

/** The figures of each side, all turns of them. */
const sides = { overlite: [], full: [], containerd: [], predecessor: [], floor: [] };
const databases = { overlite: [], containerd: [] };

async function runPeer(some) {
  if (program === undefined) return;
  const names = new Set(some.flatMap(({ peer, fullPeer = peer }) => [peer, fullPeer]));
  names.delete(undefined);
  const measured = await measurePeer(program, place(), [...names], options);
  sides.containerd.push(...measured.figures);
  databases.containerd.push(...measured.databases);
}

/**
 * Measures on stores of all sizes, which take turns too, so that a busy moment of the machine is not taken for growth.
 * What takes containerd long it does once, each size in another turn.
 */
async function measureStores() {
  if (rows.every(({ count }) => count === undefined)) return;
  const stores = [];
  for (const count of counts) {
    tell(`filling a store of ${count}`);
    const store = new StoreSide(place(), count, options);
    await store.make();
    stores.push(store);
    databases.overlite.push({ existing: count, bytes: store.databaseBytes });
  }
  for (let turn = 0; turn < TURNS; turn += 1) {
    for (const [index, store] of stores.entries()) {
      const { count } = store;
      tell(`a store of ${count}, turn ${turn + 1} of ${TURNS}`);
      sides.overlite.push(...(await store.atMetadata(wants)));
      if (count < LARGE || index % TURNS === turn) await measureOtherSides(count);
      sides.full.push(...(await store.atFull(wants)));
    }
  }
  tell('deletions, and floors');
  for (let turn = 0; turn < TURNS; turn += 1) {
    for (const store of stores) {
      sides.overlite.push(...(await store.deleting(wants)), ...(await store.opening(wants)));
    }
    sides.floor.push(...(await floors(place(), stores.at(-1).root, options, wants)));
  }
}

async function measureOtherSides(count) {
  await runPeer(rows.filter((row) => row.count === count));
  if (count > PREDECESSOR_MOST) return;
  sides.predecessor.push(...(await predecessor(place(), count, options, wants)));
}

async function measureOthers() {
  const some = rows.filter((row) => row.count === undefined);
  if (some.length === 0) return;
  tell('chains, files, and many at once');
  for (let turn = 0; turn < TURNS; turn += 1) {
    sides.overlite.push(...(await atOnce(place(), 'metadata', options, wants)));
    sides.overlite.push(...(await depths(place(), depthList, options, wants)));
    sides.overlite.push(...(await files(place(), 'metadata', options, wants)));
    await runPeer(some);
    sides.full.push(...(await atOnce(place(), 'full', options, wants)));
    sides.full.push(...(await files(place(), 'full', options, wants)));
    sides.predecessor.push(...(await predecessorDepths(place(), depthList, options, wants)));
  }
}

/** Has ext4 keep what is made in a directory apart, each in another part of the disk. */
function spreadOut(path) {
  spawnSync('chattr', ['+T', path], { stdio: 'ignore' });
}

function tell(text) {
  process.stderr.write(`${text} …\n`);
}

function gather(figures) {
  const names = [...new Set(figures.map(({ name }) => name))];
  return Object.fromEntries(
    names.map((name) => [name, combine(figures.filter((figure) => figure.name === name))]),
  );
}

try {
  await measureStores();
  await measureOthers();
  if (wants('mounting')) {
    tell('mounts');
    sides.overlite.push(...(await mounting(place(), options)));
  }
  let walk;
  if (!options.quick && only.test('walk-many')) {
    tell(`a walk over ${MANY}`);
    walk = await walkMany(place(), MANY);
  }
  const figures = Object.fromEntries(
    Object.entries(sides).map(([side, measured]) => [side, gather(measured)]),
  );
  const results = {
    when: new Date().toISOString(),
    machine: machine(options.root),
    figures,
    databases,
    walk,
  };
  const verdicts = judge(results, rows, counts);
  printReport(results, verdicts);
  // Not before everything is measured: it loads graceful-fs, which patches `fs` for the whole process.
  const { outputFileSync, outputJsonSync } = await import('fs-extra/esm');
  outputJsonSync(join(options.out, 'bench.json'), { ...results, verdicts }, { spaces: 1 });
  outputFileSync(join(options.out, 'growth.svg'), drawGrowth(results, counts));
} finally {
  rmSync(directory, { recursive: true, force: true });
}

// Measures overlite, and beside it what it is compared with. usage: npm run bench [-- OPTIONS]
//
//   --quick          two sizes of stores and a short look at each operation
//   --only REGEXP    only the operations whose name matches, such as ^prepare or @100000$
//   --peer           containerd's side too, on the same filesystem in turn
//   --root DIRECTORY where to make the stores; on a real disk, or the figures say nothing
//   --out DIRECTORY  where to write bench.json and growth.svg; bench/results unless given
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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

/** How often the sides take turns on what is soon made; what takes long to make is measured once. */
const TURNS = options.quick ? 1 : 3;
const LARGE = 10_000;
const MANY = 1_000_000;

/** The largest store that the predecessor is measured on: it makes each snapshot by itself. */
const PREDECESSOR_MOST = 10_000;

const only = new RegExp(options.only);
const wants = (name) => only.test(name);
const counts = options.quick ? sizes.quick : sizes.full;
const rows = rowsFor(counts).filter(({ name }) => wants(name));
const isWanted = (row) => rows.includes(row);

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
  const names = new Set(some.flatMap(({ peer, fullPeer }) => [peer, fullPeer]));
  names.delete(undefined);
  const measured = await measurePeer(program, place(), [...names], options);
  sides.containerd.push(...measured.figures);
  databases.containerd.push(...measured.databases);
}

async function measureStore(count) {
  const some = rows.filter((row) => row.count === count);
  if (some.length === 0) return;
  tell(`stores of ${count}`);
  for (let turn = 0; turn < (count >= LARGE ? 1 : TURNS); turn += 1) {
    const root = place();
    const side = new StoreSide(root, count, options);
    await side.make();
    if (turn === 0) databases.overlite.push({ existing: count, bytes: side.databaseBytes });
    sides.overlite.push(...(await side.atMetadata(wants)));
    await runPeer(some);
    sides.full.push(...(await side.atFull(wants)));
    sides.overlite.push(...(await side.deleting(wants)), ...(await side.opening(wants)));
    if (count <= PREDECESSOR_MOST) {
      sides.predecessor.push(...(await predecessor(place(), count, options, wants)));
    }
    if (count === counts.at(-1)) sides.floor.push(...(await floors(place(), root, options, wants)));
  }
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
  for (const count of counts) await measureStore(count);
  await measureOthers();
  if (wants('mounting')) {
    tell('mounts');
    sides.overlite.push(...(await mounting(place(), options)));
  }
  let walk;
  if (!options.quick && wants(`walk@${MANY}`)) {
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
  const verdicts = judge(results, rows.filter(isWanted), counts);
  printReport(results, verdicts);
  mkdirSync(options.out, { recursive: true });
  writeFileSync(join(options.out, 'bench.json'), `${JSON.stringify({ ...results, verdicts }, null, 1)}\n`);
  writeFileSync(join(options.out, 'growth.svg'), drawGrowth(results, counts));
} finally {
  rmSync(directory, { recursive: true, force: true });
}

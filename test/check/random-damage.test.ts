import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type Example, breakRules, contentsOf, copyExample, leaveOpen } from '../support/damage.ts';
import { Examiner } from '../support/examiner.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { amount, firstSeed, randomFrom, sampled } from '../support/sample.ts';
import { mustRun } from '../support/shell.ts';

/** How many stores are damaged. */
const count = amount({ some: 60, others: 120, all: 500 });

/** How many stores are damaged at the same time: the checks of some wait a lot. */
const LANES = 4;

type Random = (below: number) => number;

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[random(choices.length)] as T;
}

/** Flips bits in a few bytes of a file. */
function flip(file: string, random: Random): void {
  const { size } = statSync(file);
  if (size === 0) return;
  const fd = openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  for (let times = 1 + random(16); times > 0; times -= 1) {
    const at = random(size);
    readSync(fd, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ (1 + random(255));
    writeSync(fd, byte, 0, 1, at);
  }
  closeSync(fd);
}

/** Writes something else over some of a file, as a disk may. */
function overwrite(file: string, random: Random): void {
  const { size } = statSync(file);
  const fd = openSync(file, 'r+');
  const block = Buffer.alloc(512 * (1 + random(8)), pick(random, [0, 0xff, 0x41]));
  writeSync(fd, block, 0, block.length, Math.floor(random(size) / 512) * 512);
  closeSync(fd);
}

type Damage = (root: string, random: Random) => void | (() => void);

const snapshotIn = (root: string, random: Random): string =>
  join(root, 'snapshots', pick(random, readdirSync(join(root, 'snapshots'))));

/** A directory of a snapshot, or in it, or in its layer. */
function somewhere(root: string, random: Random): string {
  const directory = snapshotIn(root, random);
  const parts = readdirSync(directory);
  if (parts.length === 0 || random(3) === 0) return directory;
  const part = join(directory, pick(random, parts));
  const files = readdirSync(part);
  return files.length === 0 || random(2) === 0 ? part : join(part, pick(random, files));
}

const damages: Readonly<Record<string, Damage>> = {
  'bytes of the database are flipped': (root, random) => flip(join(root, 'metadata.db'), random),
  'blocks of the database are overwritten': (root, random) => overwrite(join(root, 'metadata.db'), random),
  'the database is cut': (root, random) => {
    const file = join(root, 'metadata.db');
    truncateSync(file, random(statSync(file).size));
  },
  'bytes of the log are flipped': (root, random) => flip(join(root, 'metadata.db-wal'), random),
  'the log is cut': (root, random) => {
    const file = join(root, 'metadata.db-wal');
    truncateSync(file, random(statSync(file).size));
  },
  'rows are edited': (root, random) => {
    const some = (): number => 1 + random(9);
    const statements = [
      // Nothing tells of an open snapshot that it stood on another one before.
      () => {
        const parent = some();
        const fits = `kind <> 'committed' and ${parent} in (select id from snapshot where kind = 'committed')`;
        return `update snapshot set parent_id = ${parent} where id = ${some()} and not (${fits});`;
      },
      () =>
        `update snapshot set kind = '${pick(random, ['active', 'view', 'committed', 'odd'])}' where id = ${some()};`,
      () => `update snapshot set inodes = ${some()} where id = ${some()};`,
      () =>
        `update snapshot set seal = 'metadata1:${'0'.repeat(64)}' where id = ${some()} and kind = 'committed';`,
      // A view on a parent has no directory that would tell of it.
      () => `delete from snapshot where id = ${some()} and (kind <> 'view' or parent_id is null);`,
      () => `insert or ignore into removal values (${some()}, 'all', 'deleting');`,
      () => `insert or ignore into removal values (${some()}, 'work', 'deleting');`,
      () => `update high_water set id = ${some()};`,
      () => `insert or ignore into label values (${some()}, 'k', 'v');`,
      () =>
        `insert or ignore into snapshot (id, name, kind, created_us, updated_us) values (${some() + 9}, 'n', 'active', 1, 1);`,
    ];
    const edits = Array.from({ length: 1 + random(3) }, () => pick(random, statements)());
    breakRules(root, edits.join('\n'));
  },
  'a directory is moved': (root, random) => {
    const from = somewhere(root, random);
    const to = pick(random, [join(root, 'elsewhere'), join(root, 'snapshots', String(1 + random(20)))]);
    if (!existsSync(to)) renameSync(from, to);
  },
  'a directory is emptied': (root, random) => {
    const directory = snapshotIn(root, random);
    mkdirSync(join(root, 'elsewhere'));
    const from = random(2) === 0 && existsSync(join(directory, 'fs')) ? join(directory, 'fs') : directory;
    for (const name of readdirSync(from)) renameSync(join(from, name), join(root, 'elsewhere', name));
  },
  'a directory is replaced by a link': (root, random) => {
    const path = somewhere(root, random);
    renameSync(path, join(root, 'elsewhere'));
    symlinkSync(pick(random, ['/', join(root, 'elsewhere'), 'nowhere', '..']), path);
  },
  'something is mounted over a directory': (root, random) => {
    let path = somewhere(root, random);
    if (!statSync(path).isDirectory()) path = snapshotIn(root, random);
    mkdirSync(join(root, 'elsewhere'));
    execFileSync('mount', ['--bind', join(root, 'elsewhere'), path]);
    return () => void execFileSync('umount', [path]);
  },
};

/** What is the same in two stores if a check finds the same in both. */
interface Seen {
  readonly rows: string;
  readonly layers: string;
}

/**
 * Reads through the shell what checks cover in the database: neither times, nor the labels and removals that the damages
 * here may add, since a store with them is as good as one without.
 */
function rowsOf({ root, ids }: Example): string {
  // From a copy: the shell writes the log into the database when it ends.
  const copy = `${root}-copy`;
  mkdirSync(copy);
  execFileSync('bash', ['-euc', 'cp "$1"/metadata.db* "$2"', '-', root, copy]);
  const rows = mustRun(
    join(copy, 'metadata.db'),
    `select id, name, kind, parent_id, inodes, seal from snapshot order by id;
     select '';
     select * from label where key not in ('n', 'k') order by 1, 2;
     select '';
     select id, state
       from removal
      where part = 'all'
        and id <= ${Math.max(...Object.values(ids))}
      order by id;`,
  );
  rmSync(copy, { recursive: true });
  return rows;
}

/** Describes the directories of all snapshots, and everything in the layers of the committed ones. */
function layersOf({ root, ids }: Example): string {
  const committed = `${ids.base} ${ids.app}`;
  const script = `
    cd snapshots
    find . -mindepth 2 -maxdepth 2 -printf '%p %y %m %U %G %l\\n' | sort
    find ${committed} -printf '%p %y %m %U %G %T@ %l\\n' | grep -v '^[0-9]* d' | sort
    find ${committed} -type f -print0 | sort -z | xargs -0 -r sha256sum`;
  return execFileSync('bash', ['-euc', script], { cwd: root, encoding: 'latin1' });
}

/**
 * Damages a copy of a store, checks and repairs it.
 *
 * @returns the kind of the damage and the status of the first check
 */
async function damageOne(seed: number, whole: Example, expected: Seen, examiner: Examiner): Promise<string> {
  const random = randomFrom(seed);
  const store = copyExample(whole, `${whole.root}-${seed}`);
  const { root } = store;
  // Without the index of its log, nobody can have the store open, and the check need not wait and look again.
  if (random(8) > 0) rmSync(join(root, 'metadata.db-shm'));
  const kind = pick(random, Object.keys(damages));
  const where = `TEST_SEED=${seed} TEST_AMOUNT=1 (${kind})`;
  let undo: void | (() => void) = undefined;
  try {
    undo = damages[kind]?.(root, random);
    const contents = contentsOf(root);
    const check = (settings = {}): ReturnType<Examiner['check']> =>
      examiner.check(root, settings).catch((error: unknown) => {
        throw new Error(`${where}: the check failed`, { cause: error });
      });
    const report = await check();
    if (report.findings.length === 0) {
      expect({ where, rows: rowsOf(store) }).toEqual({ where, rows: expected.rows });
      expect({ where, layers: layersOf(store) }).toEqual({ where, layers: expected.layers });
    }
    const repaired = await check({ repair: true });
    if (repaired.repairs.some(({ outcome }) => outcome === 'done')) {
      const again = await check({ repair: true });
      const done = again.repairs.filter(({ outcome }) => outcome === 'done');
      expect({ where, done }).toEqual({ where, done: [] });
    }
    const now = contentsOf(root);
    expect({ where, lost: contents.filter((hash) => !now.includes(hash)) }).toEqual({ where, lost: [] });
    return `${kind}: ${report.status}`;
  } finally {
    undo?.();
    rmSync(root, { recursive: true, force: true });
  }
}

const lacking = needs('root', 'sqlite3');

test.skipIf(lacking)(
  `a check never takes a randomly damaged store for a whole one, and a repair never makes it worse${lacking}`,
  { timeout: 1_800_000 },
  ({ example }) =>
    sampled(async () => {
      // Its log holds changes of which it does not matter how many are left.
      leaveOpen(
        example.root,
        `for (let n = 0; n < 8; n += 1) {
           await driver.update('base', { labels: { of: 'base', n: String(n) } });
         }`,
      );
      const expected = { rows: rowsOf(example), layers: layersOf(example) };
      const tally = new Map<string, number>();
      const failures: unknown[] = [];
      let next = 0;
      const lane = async (): Promise<void> => {
        const examiner = new Examiner();
        while (next < count) {
          try {
            const outcome = await damageOne(firstSeed + next++, example, expected, examiner);
            tally.set(outcome, (tally.get(outcome) ?? 0) + 1);
          } catch (error) {
            failures.push(error);
          }
        }
        examiner.end();
      };
      await Promise.all(Array.from({ length: LANES }, lane));
      const lines = [...tally].map(([outcome, times]) => `${outcome} ${times}`).toSorted();
      console.log(lines.join('\n'));
      if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('\n'));
      expect([...tally.values()].reduce((sum, times) => sum + times, 0)).toBe(count);
    }),
);

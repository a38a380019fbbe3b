import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { FINDINGS, type FindingCode, OverlayDriver, type Report, checkStore } from '../../src/index.ts';
import { type Example, breakRules, leaveOpen, useExample } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { Examiner } from '../support/examiner.ts';
import { isRoot } from '../support/needs.ts';
import { hasShell, mustRun, queryShell } from '../support/shell.ts';

const needs = [isRoot ? '' : 'root', hasShell ? '' : 'sqlite3'].filter((need) => need !== '').join(' and ');

const example = useExample();

function codesOf({ findings }: Report): FindingCode[] {
  return findings.map(({ code }) => code).toSorted();
}

/** A damage, what a check finds of it, and what is left after a repair. */
interface Case {
  readonly code: FindingCode;
  /** What tells it from other cases of the same code. */
  readonly what?: string;
  readonly damage: (example: Example) => void | (() => void) | Promise<void | (() => void)>;
  /** What is found beside it, since the same damage shows there too. */
  readonly also?: readonly FindingCode[];
  /** What is left after a repair; nothing, or all of it if the check says that it cannot be repaired. */
  readonly left?: readonly FindingCode[];
  /** Whether an error is found. */
  readonly status?: Report['status'];
  readonly options?: Parameters<typeof checkStore>[1];
}

const write = (path: string, text: string): void => writeFileSync(path, text);

function patch(file: string, offset: number, bytes: Buffer): void {
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

/** Where in the database a table or an index begins. */
function pageOf(root: string, name: string): number {
  const [row] = queryShell<{ rootpage: number }>(
    join(root, 'metadata.db'),
    `select rootpage from sqlite_schema where name = '${name}'`,
  );
  return ((row?.rootpage ?? 0) - 1) * 4096;
}

const cases: Case[] = [
  { code: 'database-missing', damage: ({ at }) => rmSync(at('metadata.db')) },
  {
    code: 'restore-interrupted',
    damage: ({ at }) => renameSync(at('metadata.db'), at('metadata.db-restoring')),
  },
  { code: 'not-a-database', what: 'text', damage: ({ at }) => write(at('metadata.db'), 'x'.repeat(9000)) },
  { code: 'not-a-database', what: 'empty', damage: ({ at }) => truncateSync(at('metadata.db')) },
  {
    code: 'not-a-database',
    what: 'a link',
    damage: ({ at }) => {
      renameSync(at('metadata.db'), at('elsewhere'));
      symlinkSync('elsewhere', at('metadata.db'));
    },
  },
  {
    code: 'database-unreadable',
    damage: ({ at }) => truncateSync(at('metadata.db'), 5000),
  },
  {
    code: 'database-foreign',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'pragma application_id = 7;'),
  },
  {
    code: 'database-newer',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'pragma user_version = 4711;'),
    status: 'incomplete',
  },
  {
    code: 'database-older',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        `drop trigger snapshot_volatile;
         alter table snapshot drop column volatile_boot;
         pragma user_version = 1;`,
      ),
    status: 'clean',
    // The table was not made by the migration, and is not quite as that makes it.
  },
  {
    code: 'database-corrupt',
    damage: ({ root, at }) => {
      const page = pageOf(root, 'snapshot');
      patch(at('metadata.db'), page, Buffer.alloc(8, 0xff));
    },
  },
  {
    code: 'index-damaged',
    damage: ({ root, at }) => {
      const page = pageOf(root, 'label_value');
      const bytes = readFileSync(at('metadata.db')).subarray(page, page + 4096);
      patch(at('metadata.db'), page + bytes.lastIndexOf('ofbase'), Buffer.from('ofbass'));
    },
    left: [],
  },
  {
    code: 'constraint-broken',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set in_use = 7 where id = ${ids.base};`),
  },
  {
    code: 'foreign-key',
    damage: ({ root }) => breakRules(root, `insert into label values (4711, 'stray', 'label');`),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a trigger is missing',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'drop trigger snapshot_delete;'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a view is another',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        'drop view snapshot_tree; create view snapshot_tree (tree) as select name from snapshot;',
      ),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'an index is missing',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'drop index snapshot_child;'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a table is added',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'create table mine (x);'),
    status: 'clean',
  },
  {
    code: 'schema-differs',
    what: 'a table has another column',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'alter table label add column x text;'),
  },
  {
    code: 'wal-missing',
    what: 'its index is there',
    damage: ({ root, at }) => {
      leaveOpen(root, `await driver.update('base', { labels: { a: 'b' } });`);
      rmSync(at('metadata.db-wal'));
    },
  },
  {
    code: 'wal-missing',
    what: 'directories are newer',
    damage: async ({ root, at }) => {
      leaveOpen(root, `await driver.prepare('late'); await driver.commit('later', 'late');`);
      for (const id of readdirSync(at('snapshots'))) write(at('snapshots', id, 'fs', '.late'), '');
      for (const id of readdirSync(at('snapshots')).slice(0, -1)) rmSync(at('snapshots', id, 'fs', '.late'));
      rmSync(at('metadata.db-wal'));
      rmSync(at('metadata.db-shm'));
    },
    also: ['directory-unknown'],
    options: { only: ['database', 'graph', 'directories'] },
  },
  {
    code: 'wal-damaged',
    damage: ({ root, at }) => {
      leaveOpen(
        root,
        `for (let n = 0; n < 5; n += 1) await driver.update('base', { labels: { of: 'base', n: String(n) } });`,
      );
      patch(at('metadata.db-wal'), 32 + 24 + 4096 + 24 + 100, Buffer.from('damage'));
    },
    status: 'clean',
    left: [],
  },

  {
    code: 'missing-parent',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set parent_id = 4711 where id = ${ids.app};`),
    also: ['foreign-key'],
  },
  {
    code: 'parent-not-committed',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set parent_id = ${ids.scratch} where id = ${ids.work};`),
  },
  {
    code: 'cycle',
    damage: ({ root, ids }) =>
      breakRules(
        root,
        `delete from snapshot where id in (${ids.work}, ${ids.reader});
         delete from label where snapshot_id in (${ids.work}, ${ids.reader});
         insert into removal values (${ids.work}, 'all', 'deleting');
         update snapshot set parent_id = ${ids.app} where id = ${ids.base};`,
      ),
    also: ['cycle', 'removal-waiting'],
  },
  {
    code: 'kind-unknown',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set kind = 'odd' where id = ${ids.reader};`),
    also: ['constraint-broken', 'directory-missing'],
  },
  {
    code: 'kind-and-usage',
    what: 'of one that is committed',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set inodes = null where id = ${ids.app};`),
    options: { only: ['graph', 'layers'] },
    left: [],
  },
  {
    code: 'kind-and-usage',
    what: 'of one that is open',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set inodes = 1, size = 0 where id = ${ids.work};`),
    options: { only: ['graph', 'layers'] },
    left: [],
  },
  {
    code: 'chain-too-long',
    damage: ({ root, ids, at }) => {
      breakRules(
        root,
        `with recursive n (x) as (select 1001 union all select x + 1 from n where x < 1499)
         insert into snapshot (id, name, kind, parent_id, created_us, updated_us, inodes, size)
         select x, 'n' || x, 'committed', case x when 1001 then ${ids.app} else x - 1 end, 1, 1, 1, 4096 from n;
         insert into snapshot (id, name, kind, parent_id, created_us, updated_us)
         values (1500, 'top', 'active', 1499, 1, 1);
         update high_water set id = 1500;`,
      );
      for (let id = 1001; id <= 1500; id += 1) mkdirSync(at('snapshots', id, 'fs'), { recursive: true });
      mkdirSync(at('snapshots', 1500, 'work'));
    },
    options: { only: ['database', 'graph', 'directories'] },
  },
  {
    code: 'live-and-journalled',
    damage: ({ root, ids }) =>
      breakRules(root, `insert into removal values (${ids.base}, 'all', 'deleting');`),
    also: ['removal-waiting'],
    left: [],
  },
  {
    code: 'live-and-journalled',
    what: 'the work directory of one that is active',
    damage: ({ root, ids }) =>
      breakRules(root, `insert into removal values (${ids.work}, 'work', 'deleting');`),
    also: ['removal-waiting'],
    left: [],
  },
  {
    code: 'high-water-low',
    what: 'it is low',
    damage: ({ root }) => breakRules(root, 'update high_water set id = 1;'),
    left: [],
  },
  {
    code: 'high-water-low',
    what: 'it is missing',
    damage: ({ root }) => breakRules(root, 'delete from high_water;'),
    left: [],
  },

  {
    code: 'root-owner',
    damage: ({ root }) => chownSync(root, 4711, 4711),
  },
  {
    code: 'root-mode',
    what: 'to read',
    damage: ({ root }) => chmodSync(root, 0o755),
    status: 'clean',
    left: [],
  },
  { code: 'root-mode', what: 'to write', damage: ({ root }) => chmodSync(root, 0o770), left: [] },
  {
    code: 'database-mode',
    damage: ({ at }) => chmodSync(at('metadata.db'), 0o644),
    status: 'clean',
    left: [],
  },
  {
    code: 'snapshots-missing',
    damage: ({ root, at, ids }) => {
      breakRules(
        root,
        `delete from snapshot where id <> ${ids.reader}; delete from label; update snapshot set kind = 'view', parent_id = null;`,
      );
      mkdirSync(at('other'));
      renameSync(at('snapshots'), at('other', 'snapshots'));
    },
    also: ['directory-missing'],
    left: [],
  },
  {
    code: 'snapshots-filesystem',
    damage: ({ at }) => {
      const disk = makeDisk('tmpfs', 8);
      cpSync(at('snapshots'), join(disk.path, 'snapshots'), { recursive: true, preserveTimestamps: true });
      execFileSync('mount', ['--bind', join(disk.path, 'snapshots'), at('snapshots')]);
      return () => {
        execFileSync('umount', [at('snapshots')]);
        disk.remove();
      };
    },
    also: ['mounted-over'],
    options: { only: ['directories'] },
  },
  {
    code: 'directory-missing',
    what: 'of one that is committed',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.base), at('away')),
  },
  {
    code: 'directory-missing',
    what: 'of one that is active',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.work), at('away')),
    left: [],
  },
  {
    code: 'layer-missing',
    what: 'of one that is committed',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.app, 'fs'), at('away')),
  },
  {
    code: 'layer-missing',
    what: 'of one that is active',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.work, 'fs'), at('away')),
    left: [],
  },
  {
    code: 'work-missing',
    damage: ({ at, ids }) => rmSync(at('snapshots', ids.work, 'work'), { recursive: true }),
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the layer of an active one is a link',
    damage: ({ at, ids }) => {
      renameSync(at('snapshots', ids.work, 'fs'), at('away'));
      symlinkSync(at('away'), at('snapshots', ids.work, 'fs'));
    },
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the layer of a committed one is a link',
    damage: ({ at, ids }) => {
      renameSync(at('snapshots', ids.app, 'fs'), at('away'));
      symlinkSync(at('away'), at('snapshots', ids.app, 'fs'));
    },
    left: ['layer-missing'],
  },
  {
    code: 'not-a-directory',
    what: 'the whole directory is a file',
    damage: ({ at, ids }) => {
      rmSync(at('snapshots', ids.scratch), { recursive: true });
      write(at('snapshots', ids.scratch), 'text');
    },
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the work directory is a file',
    damage: ({ at, ids }) => {
      rmSync(at('snapshots', ids.work, 'work'), { recursive: true });
      write(at('snapshots', ids.work, 'work'), 'text');
    },
    left: [],
  },
  {
    code: 'directory-unknown',
    what: 'called like an id',
    damage: ({ at }) => {
      mkdirSync(at('snapshots', 4711, 'fs'), { recursive: true });
      write(at('snapshots', 4711, 'fs', 'file'), 'text');
    },
    // Without a log, a directory that is newer than all that the database knows says that one is missing.
    also: ['wal-missing'],
  },
  {
    code: 'directory-unknown',
    what: 'of an id that was used before',
    damage: ({ root, at }) => {
      breakRules(root, 'update high_water set id = 4800;');
      mkdirSync(at('snapshots', 4711, 'fs'), { recursive: true });
      write(at('snapshots', 4711, 'fs', 'file'), 'text');
    },
    status: 'clean',
    left: [],
  },
  {
    code: 'directory-unknown',
    what: 'called otherwise, and not in UTF-8',
    damage: ({ at }) => mkdirSync(Buffer.concat([Buffer.from(at('snapshots', 'x')), Buffer.of(0xff, 0x0a)])),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'beside a layer',
    damage: ({ at, ids }) => write(at('snapshots', ids.base, 'notes'), 'text'),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'a work directory of one that is committed',
    damage: ({ at, ids }) => mkdirSync(at('snapshots', ids.base, 'work')),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'a directory of a view that needs none',
    damage: ({ at, ids }) => mkdirSync(at('snapshots', ids.reader)),
    status: 'clean',
    left: [],
  },
  {
    code: 'skeleton',
    damage: ({ at }) => {
      mkdirSync(at('snapshots', 4711, 'fs'), { recursive: true });
      mkdirSync(at('snapshots', 4711, 'work'));
    },
    status: 'clean',
    left: [],
  },
  {
    code: 'mounted-over',
    damage: ({ at, ids }) => {
      mkdirSync(at('other'));
      execFileSync('mount', ['--bind', at('other'), at('snapshots', ids.base, 'fs')]);
      return () => void execFileSync('umount', [at('snapshots', ids.base, 'fs')]);
    },
  },
  {
    code: 'mounted-over',
    what: 'within a layer, which is whole below it',
    damage: ({ at, ids }) => {
      mkdirSync(at('other'));
      execFileSync('mount', ['--bind', at('other'), at('snapshots', ids.base, 'fs', 'etc')]);
      return () => void execFileSync('umount', [at('snapshots', ids.base, 'fs', 'etc')]);
    },
    status: 'clean',
  },

  {
    code: 'seal-broken',
    what: 'a file is added',
    damage: ({ at, ids }) => write(at('snapshots', ids.base, 'fs', 'added'), ''),
  },
  {
    code: 'seal-broken',
    what: 'a file is gone',
    damage: ({ at, ids }) => rmSync(at('snapshots', ids.base, 'fs', 'etc', 'hosts')),
  },
  {
    code: 'seal-broken',
    what: 'a file is cut off',
    damage: ({ at, ids }) => truncateSync(at('snapshots', ids.base, 'fs', 'large'), 10),
  },
  {
    code: 'seal-broken',
    what: 'a mode is another',
    damage: ({ at, ids }) => chmodSync(at('snapshots', ids.base, 'fs', 'large'), 0o4755),
  },
  {
    code: 'usage-differs',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set inodes = 99, seal = null where id = ${ids.base};`),
  },
  {
    code: 'blocks-differ',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set size = 1 where id = ${ids.base};`),
    status: 'clean',
  },
  {
    code: 'seal-in-use',
    damage: ({ root, at, ids }) => {
      breakRules(root, `update snapshot set in_use = 1 where id = ${ids.base};`);
      write(at('snapshots', ids.base, 'fs', 'late'), 'late');
    },
    status: 'clean',
  },
  {
    code: 'seal-unknown',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set seal = 'metadata9:abc' where id = ${ids.base};`),
    status: 'clean',
  },
  {
    code: 'layer-unreadable',
    // A check of the layers alone has only the attempt to read it to go by.
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.base, 'fs'), at('away')),
    options: { only: ['layers'] },
  },

  {
    code: 'removal-waiting',
    damage: ({ root }) => leaveOpen(root, `await driver.remove('work');`),
    status: 'clean',
  },
  {
    code: 'reservation-abandoned',
    damage: ({ root, at, ids }) => {
      breakRules(
        root,
        `insert into removal values (4711, 'all', 'reserved'); update high_water set id = 4711;`,
      );
      cpSync(at('snapshots', ids.base), at('snapshots', 4711), { recursive: true });
    },
    status: 'clean',
  },
  {
    code: 'volatile-lost',
    what: 'of another boot',
    damage: ({ root, at, ids }) => {
      breakRules(root, `update snapshot set volatile_boot = 'before' where id = ${ids.work};`);
      mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true });
    },
  },
  {
    code: 'volatile-lost',
    what: 'mounted by hand',
    damage: ({ at, ids }) =>
      void mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true }),
  },
  {
    code: 'open-long',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set created_us = 1 where id = ${ids.work};`),
    options: { olderThan: 3_600_000 },
    status: 'clean',
  },

  {
    code: 'mount-of-damaged',
    damage: async ({ root, at, ids }) => {
      const unmount = await mountWork(root, at('target'));
      write(at('snapshots', ids.base, 'fs', 'added'), '');
      return unmount;
    },
    also: ['seal-broken'],
  },
  {
    code: 'mount-of-removed',
    damage: async ({ root, at, ids }) => {
      const unmount = await mountWork(root, at('target'));
      breakRules(
        root,
        `delete from label where snapshot_id = ${ids.work}; delete from snapshot where id = ${ids.work};
         insert into removal values (${ids.work}, 'all', 'deleting');`,
      );
      return unmount;
    },
    also: ['removal-waiting'],
    status: 'clean',
  },
  {
    code: 'mount-of-unknown',
    damage: async ({ root, at, ids }) => {
      const unmount = await mountWork(root, at('target'));
      breakRules(
        root,
        `delete from label where snapshot_id = ${ids.work}; delete from snapshot where id = ${ids.work};`,
      );
      return unmount;
    },
    also: ['directory-unknown'],
    status: 'clean',
    left: ['directory-unknown', 'mount-of-unknown'],
  },
];

async function mountWork(root: string, target: string): Promise<() => void> {
  mkdirSync(target);
  const driver = await OverlayDriver.open(root, { backups: false });
  await driver.mount('work', target);
  await driver.close();
  return () => void execFileSync('umount', [target]);
}

const examiner = new Examiner();
afterAll(() => examiner.end());

test('every finding has a case', () => {
  expect([...new Set(cases.map(({ code }) => code))].toSorted()).toEqual(Object.keys(FINDINGS).toSorted());
});

test('every finding is documented', () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/check.md'), 'utf8');
  expect(Object.keys(FINDINGS).filter((code) => !text.includes(`\`${code}\``))).toEqual([]);
});

describe.skipIf(needs !== '')(`a check finds${needs && ` (needs ${needs})`}`, () => {
  test('nothing in a store that is whole, and changes nothing', async () => {
    const before = snapshotOf(example.root);
    const report = await checkStore(example.root, { contents: true });
    expect(report).toMatchObject({ status: 'clean', findings: [], rebuild: [], repairs: [] });
    expect(report.steps.every(({ state, checked }) => state === 'done' && checked > 0)).toBe(true);
    expect(snapshotOf(example.root)).toBe(before);
  });

  for (const { code, what, damage, also = [], left, status = 'damaged', options = {} } of cases) {
    test(`${code}${what === undefined ? '' : `: ${what}`}`, async () => {
      const undo = await damage(example);
      try {
        const before = snapshotOf(example.root);
        const report = await checkStore(example.root, options);
        const expected = [code, ...also].toSorted();
        expect({ codes: codesOf(report), status: report.status }).toEqual({ codes: expected, status });
        const dry = await examiner.check(example.root, { ...options, repair: true, dryRun: true });
        expect(codesOf(dry)).toEqual(expected);
        expect(dry.repairs.map(({ outcome }) => outcome).filter((o) => o === 'done' || o === 'gone')).toEqual(
          [],
        );
        expect(snapshotOf(example.root)).toBe(before);

        const files = filesOf(example.root);
        const repaired = await examiner.check(example.root, { ...options, repair: true });
        expect(codesOf(repaired)).toEqual((left ?? expected).toSorted());
        expect(codesOf(await examiner.check(example.root, options))).toEqual((left ?? expected).toSorted());
        if (left?.length === 0) {
          expect(repaired.repairs.map(({ code: repairedCode }) => repairedCode)).toContain(code);
          expect(repaired.status).toBe('repaired');
        }
        // Wherever they are now, no file that was there is gone.
        const now = filesOf(example.root);
        for (const text of files) expect(now).toContain(text);
      } finally {
        undo?.();
      }
    });
  }
});

/** Everything in a store, as text; without the scratch files of SQLite's that any reader may touch. */
function snapshotOf(root: string): string {
  const script = `
    find . -not -name 'metadata.db-shm' -printf '%p %y %m %U %G %s %T@ %l\\n' | sort
    find . -type f -not -name 'metadata.db-shm' -print0 | sort -z | xargs -0 sha256sum`;
  // The root's own time changes with the scratch files.
  return execFileSync('bash', ['-euc', script], { cwd: root, encoding: 'latin1' }).replace(/^\. .*\n/, '');
}

/** What the files of the layers hold, wherever they are. */
function filesOf(root: string): string[] {
  const script = `find . -type f -not -name 'metadata.db*' -not -name '*.note' -print0 | xargs -0 -r sha256sum`;
  const lines = execFileSync('bash', ['-euc', script], { cwd: root, encoding: 'latin1' }).split('\n');
  return lines.map((line) => line.slice(0, 64)).filter((line) => line !== '');
}

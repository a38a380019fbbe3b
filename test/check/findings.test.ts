import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect } from 'vitest';
import {
  type CheckOptions,
  FINDINGS,
  type FindingCode,
  OverlayDriver,
  type Report,
} from '../../src/index.ts';
import { type Example, breakRules, contentsOf, leaveOpen } from '../support/damage.ts';
import { makeDisk } from '../support/disk.ts';
import { makeFirstVersion } from '../support/first-version.ts';
import { test } from '../support/fixtures.ts';
import { ENDLESS_TRIGGER } from '../support/endless-trigger.ts';
import { needs } from '../support/needs.ts';
import { mustRun, queryShell } from '../support/shell.ts';

/** A damage, what a check finds, and what is left after a repair. */
interface Case {
  readonly code: FindingCode;
  readonly what: string;
  /** Damages a store, and returns what has to be undone after the test, if anything. */
  readonly damage: (example: Example) => void | (() => void) | Promise<void | (() => void)>;
  /** The other findings of the same damage. */
  readonly also?: readonly FindingCode[];
  /** The findings that are left after a repair (default: all of them). */
  readonly left?: readonly FindingCode[];
  /** The status of the first report (default: damaged). */
  readonly status?: Report['status'];
  readonly options?: CheckOptions;
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
  {
    code: 'database-missing',
    what: 'the file was deleted',
    damage: ({ at }) => rmSync(at('metadata.db')),
  },
  {
    code: 'restore-interrupted',
    what: 'a restoration stopped before its last step',
    damage: ({ at }) => renameSync(at('metadata.db'), at('metadata.db-restoring')),
  },
  {
    code: 'not-a-database',
    what: 'the file is text',
    damage: ({ at }) => write(at('metadata.db'), 'x'.repeat(9000)),
  },
  {
    code: 'not-a-database',
    what: 'the file is empty',
    damage: ({ at }) => truncateSync(at('metadata.db')),
  },
  {
    code: 'not-a-database',
    what: 'the file is a symbolic link',
    damage: ({ at }) => {
      renameSync(at('metadata.db'), at('elsewhere'));
      symlinkSync('elsewhere', at('metadata.db'));
    },
  },
  {
    code: 'wrong-type',
    what: 'the log is a fifo',
    damage: ({ at }) => void execFileSync('mkfifo', [at('metadata.db-wal')]),
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'the index of the log is a device',
    damage: ({ at }) => void execFileSync('mknod', [at('metadata.db-shm'), 'c', '1', '5']),
    also: ['wal-missing'],
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'the journal is a directory',
    damage: ({ at }) => mkdirSync(at('metadata.db-journal')),
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'the spare space is a symbolic link',
    damage: ({ at }) => {
      rmSync(at('metadata.db-reserve'));
      symlinkSync('elsewhere', at('metadata.db-reserve'));
    },
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'a new database that waits to be put in place is a fifo',
    damage: ({ at }) => void execFileSync('mkfifo', [at('metadata.db-restoring')]),
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'a backup is a fifo',
    damage: ({ at }) => {
      mkdirSync(at('backups'));
      execFileSync('mkfifo', [at('backups', 'metadata-20300101T000000000Z.db')]);
    },
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'the directory of the backups is a symbolic link',
    damage: ({ at }) => symlinkSync('snapshots', at('backups')),
    left: [],
  },
  {
    code: 'wrong-type',
    what: 'lost+found is a symbolic link and the database is damaged',
    damage: ({ at }) => {
      symlinkSync('snapshots', at('lost+found'));
      write(at('metadata.db'), 'x'.repeat(9000));
    },
    also: ['not-a-database'],
    left: ['not-a-database'],
  },
  {
    code: 'database-unreadable',
    what: 'the file was truncated',
    damage: ({ at }) => truncateSync(at('metadata.db'), 5000),
  },
  {
    code: 'database-foreign',
    what: 'the application id is another',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'pragma application_id = 7;'),
  },
  {
    code: 'database-newer',
    what: 'the schema version is unknown',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'pragma user_version = 4711;'),
    status: 'incomplete',
  },
  {
    code: 'database-older',
    what: 'the schema version is the first',
    damage: ({ at }) => makeFirstVersion(at('metadata.db')),
    status: 'clean',
    // The table was not made by the migration, and is not quite as that makes it.
  },
  {
    code: 'database-oversized',
    what: 'the file was extended',
    damage: ({ at }) => truncateSync(at('metadata.db'), 1 << 20),
    status: 'clean',
  },
  {
    code: 'database-corrupt',
    what: 'the first page of a table was overwritten',
    damage: ({ root, at }) => {
      const page = pageOf(root, 'snapshot');
      patch(at('metadata.db'), page, Buffer.alloc(8, 0xff));
    },
  },
  {
    code: 'index-damaged',
    what: 'an entry of an index differs from its row',
    damage: ({ root, at }) => {
      const page = pageOf(root, 'label_value');
      const bytes = readFileSync(at('metadata.db')).subarray(page, page + 4096);
      patch(at('metadata.db'), page + bytes.lastIndexOf('ofbase'), Buffer.from('ofbass'));
    },
    left: [],
  },
  {
    code: 'constraint-broken',
    what: 'a column has a value that its constraint forbids',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set in_use = 7 where id = ${ids.base};`),
  },
  {
    code: 'foreign-key',
    what: 'a label belongs to no snapshot',
    damage: ({ root }) => breakRules(root, `insert into label values (4711, 'stray', 'label');`),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a trigger was dropped',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'drop trigger snapshot_delete;'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a view was replaced',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        'drop view snapshot_tree; create view snapshot_tree (tree) as select name from snapshot;',
      ),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'an index was dropped',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'drop index snapshot_child;'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a table was added',
    damage: ({ at }) =>
      void mustRun(at('metadata.db'), 'create table mine (x); insert into mine values (7);'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a view was added',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'create view "my \n view" as select 1;'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'an index was added',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'create index mine on label (upper(value));'),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a trigger was added that never ends',
    damage: ({ at }) => void mustRun(at('metadata.db'), ENDLESS_TRIGGER),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a trigger was added under a name like those of SQLite',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        `${ENDLESS_TRIGGER}
         pragma writable_schema = on;
         update sqlite_schema set name = 'sqlite_mine', sql = replace(sql, 'mine', 'sqlite_mine') where name = 'mine';`,
      ),
    left: [],
  },
  {
    code: 'schema-differs',
    what: 'a view that never ends is in the place of a table',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        `drop table label;
         create view label (snapshot_id, key, value) as
         with recursive n (i) as (select 1 union all select i + 1 from n) select i, i, i from n;`,
      ),
    // The triggers, the index and the view that read the table.
    also: ['database-corrupt', ...Array<FindingCode>(4).fill('schema-differs')],
  },
  {
    code: 'schema-differs',
    what: 'a column was added',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'alter table label add column x text;'),
  },
  {
    code: 'wal-missing',
    what: 'the log was deleted but not its index',
    damage: ({ root, at }) => {
      leaveOpen(root, `await driver.update('base', { labels: { a: 'b' } });`);
      rmSync(at('metadata.db-wal'));
    },
  },
  {
    code: 'wal-missing',
    what: 'the log was deleted and directories are newer than the database',
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
    what: 'the middle of the log was overwritten',
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
    what: 'a parent does not exist',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set parent_id = 4711 where id = ${ids.app};`),
    also: ['foreign-key'],
  },
  {
    code: 'parent-not-committed',
    what: 'a parent is active',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set parent_id = ${ids.scratch} where id = ${ids.work};`),
  },
  {
    code: 'cycle',
    what: 'two snapshots are ancestors of each other',
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
    what: 'a kind is none of the three',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set kind = 'odd' where id = ${ids.reader};`),
    also: ['constraint-broken', 'directory-missing'],
  },
  {
    code: 'kind-and-usage',
    what: 'a committed snapshot has no usage',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set inodes = null where id = ${ids.app};`),
    options: { only: ['graph', 'layers'] },
    left: [],
  },
  {
    code: 'kind-and-usage',
    what: 'an active snapshot has a usage',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set inodes = 1, size = 0 where id = ${ids.work};`),
    options: { only: ['graph', 'layers'] },
    left: [],
  },
  {
    code: 'chain-too-long',
    what: 'a chain has more layers than overlayfs mounts',
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
    what: 'a committed snapshot is in the removal journal',
    damage: ({ root, ids }) =>
      breakRules(root, `insert into removal values (${ids.base}, 'all', 'deleting');`),
    also: ['removal-waiting'],
    left: [],
  },
  {
    code: 'live-and-journalled',
    what: 'the work directory of an active snapshot is in the removal journal',
    damage: ({ root, ids }) =>
      breakRules(root, `insert into removal values (${ids.work}, 'work', 'deleting');`),
    also: ['removal-waiting'],
    left: [],
  },
  {
    code: 'high-water-low',
    what: 'the mark is below ids that are in use',
    damage: ({ root }) => breakRules(root, 'update high_water set id = 1;'),
    left: [],
  },
  {
    code: 'high-water-low',
    what: 'the mark is missing',
    damage: ({ root }) => breakRules(root, 'delete from high_water;'),
    left: [],
  },
  {
    code: 'high-water-high',
    what: 'the mark is the highest number that an id can be',
    damage: ({ at }) => void mustRun(at('metadata.db'), 'update high_water set id = 9007199254740991;'),
    left: [],
  },
  {
    code: 'high-water-high',
    what: 'SQLite goes on after the highest number that it knows',
    damage: ({ at }) =>
      void mustRun(at('metadata.db'), 'update sqlite_sequence set seq = 9223372036854775807;'),
    left: [],
  },
  {
    code: 'high-water-high',
    what: 'a directory is to be deleted whose id is close to the highest',
    damage: ({ at }) =>
      void mustRun(at('metadata.db'), `insert into removal values (9007199254740000, 'all', 'deleting');`),
    left: [],
  },
  {
    code: 'high-water-high',
    what: 'a snapshot has an id that is close to the highest',
    damage: ({ at }) =>
      void mustRun(
        at('metadata.db'),
        `insert into snapshot (id, name, kind, parent_id, created_us, updated_us)
         values (9007199254740000, 'last', 'active', null, 0, 0);`,
      ),
    also: ['directory-missing'],
    left: ['high-water-high'],
  },

  {
    code: 'root-replaceable',
    what: 'a directory above the root belongs to another user',
    damage: ({ root }) => chownSync(dirname(root), 4711, 4711),
    status: 'clean',
    left: ['root-replaceable'],
  },
  {
    code: 'root-replaceable',
    what: 'others may write to a directory above the root',
    damage: ({ root }) => chmodSync(dirname(root), 0o775),
    status: 'clean',
    left: ['root-replaceable'],
  },
  {
    code: 'root-owner',
    what: 'the root belongs to another user',
    damage: ({ root }) => chownSync(root, 4711, 4711),
  },
  {
    code: 'root-mode',
    what: 'others may read the root',
    damage: ({ root }) => chmodSync(root, 0o755),
    status: 'clean',
    left: [],
  },
  {
    code: 'root-mode',
    what: 'others may write to the root',
    damage: ({ root }) => chmodSync(root, 0o770),
    left: [],
  },
  {
    code: 'database-mode',
    what: 'others may read the database',
    damage: ({ at }) => chmodSync(at('metadata.db'), 0o644),
    status: 'clean',
    left: [],
  },
  {
    code: 'snapshots-missing',
    what: 'snapshots/ was moved away',
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
    code: 'snapshots-link',
    what: 'snapshots/ was moved to another filesystem, with a link in its place',
    damage: ({ at }) => {
      const disk = makeDisk('tmpfs', 8);
      cpSync(at('snapshots'), join(disk.path, 'snapshots'), { recursive: true });
      renameSync(at('snapshots'), at('moved'));
      symlinkSync(join(disk.path, 'snapshots'), at('snapshots'));
      return () => disk.remove();
    },
  },
  {
    code: 'not-a-directory',
    what: 'snapshots/ is a fifo',
    damage: ({ at }) => {
      renameSync(at('snapshots'), at('moved'));
      execFileSync('mkfifo', [at('snapshots')]);
    },
    left: ['directory-missing', 'directory-missing', 'layer-missing', 'work-missing'],
  },
  {
    code: 'snapshots-filesystem',
    what: 'snapshots/ is on another filesystem',
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
    what: 'the directory of a committed snapshot was moved away',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.base), at('away')),
  },
  {
    code: 'directory-missing',
    what: 'the directory of an active snapshot was moved away',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.work), at('away')),
    left: [],
  },
  {
    code: 'layer-missing',
    what: 'the layer of a committed snapshot was moved away',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.app, 'fs'), at('away')),
  },
  {
    code: 'layer-missing',
    what: 'the layer of an active snapshot was moved away',
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.work, 'fs'), at('away')),
    left: [],
  },
  {
    code: 'work-missing',
    what: 'the work directory of an active snapshot was deleted',
    damage: ({ at, ids }) => rmSync(at('snapshots', ids.work, 'work'), { recursive: true }),
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the layer of an active snapshot is a symbolic link',
    damage: ({ at, ids }) => {
      renameSync(at('snapshots', ids.work, 'fs'), at('away'));
      symlinkSync(at('away'), at('snapshots', ids.work, 'fs'));
    },
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the layer of a committed snapshot is a symbolic link',
    damage: ({ at, ids }) => {
      renameSync(at('snapshots', ids.app, 'fs'), at('away'));
      symlinkSync(at('away'), at('snapshots', ids.app, 'fs'));
    },
    left: ['layer-missing'],
  },
  {
    code: 'not-a-directory',
    what: 'the directory of a snapshot is a file',
    damage: ({ at, ids }) => {
      rmSync(at('snapshots', ids.scratch), { recursive: true });
      write(at('snapshots', ids.scratch), 'text');
    },
    left: [],
  },
  {
    code: 'not-a-directory',
    what: 'the work directory of a snapshot is a file',
    damage: ({ at, ids }) => {
      rmSync(at('snapshots', ids.work, 'work'), { recursive: true });
      write(at('snapshots', ids.work, 'work'), 'text');
    },
    left: [],
  },
  {
    code: 'directory-unknown',
    what: 'a directory has an id above the high-water mark',
    damage: ({ at }) => {
      mkdirSync(at('snapshots', 4711, 'fs'), { recursive: true });
      write(at('snapshots', 4711, 'fs', 'file'), 'text');
    },
    // Without a log, a directory that is newer than all that the database knows says that one is missing.
    also: ['wal-missing'],
  },
  {
    code: 'directory-unknown',
    what: 'a directory has an id that was used before',
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
    what: 'a directory has a name that is neither an id nor UTF-8',
    damage: ({ at }) => mkdirSync(Buffer.concat([Buffer.from(at('snapshots', 'x')), Buffer.of(0xff, 0x0a)])),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'a file lies beside a layer',
    damage: ({ at, ids }) => write(at('snapshots', ids.base, 'notes'), 'text'),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'a committed snapshot has a work directory',
    damage: ({ at, ids }) => mkdirSync(at('snapshots', ids.base, 'work')),
    status: 'clean',
    left: [],
  },
  {
    code: 'entry-extra',
    what: 'a view on a parent has a directory',
    damage: ({ at, ids }) => mkdirSync(at('snapshots', ids.reader)),
    status: 'clean',
    left: [],
  },
  {
    code: 'skeleton',
    what: 'an empty directory belongs to no snapshot',
    damage: ({ at }) => {
      mkdirSync(at('snapshots', 4711, 'fs'), { recursive: true });
      mkdirSync(at('snapshots', 4711, 'work'));
    },
    status: 'clean',
    left: [],
  },
  {
    code: 'mounted-over',
    what: 'a layer is hidden by a mount',
    damage: ({ at, ids }) => {
      mkdirSync(at('other'));
      execFileSync('mount', ['--bind', at('other'), at('snapshots', ids.base, 'fs')]);
      return () => void execFileSync('umount', [at('snapshots', ids.base, 'fs')]);
    },
  },
  {
    code: 'mounted-over',
    what: 'a directory in a layer is hidden by a mount',
    damage: ({ at, ids }) => {
      mkdirSync(at('other'));
      execFileSync('mount', ['--bind', at('other'), at('snapshots', ids.base, 'fs', 'etc')]);
      return () => void execFileSync('umount', [at('snapshots', ids.base, 'fs', 'etc')]);
    },
    status: 'clean',
  },

  {
    code: 'seal-broken',
    what: 'a file was added',
    damage: ({ at, ids }) => write(at('snapshots', ids.base, 'fs', 'added'), ''),
  },
  {
    code: 'seal-broken',
    what: 'a file was deleted',
    damage: ({ at, ids }) => rmSync(at('snapshots', ids.base, 'fs', 'etc', 'hosts')),
  },
  {
    code: 'seal-broken',
    what: 'a file was truncated',
    damage: ({ at, ids }) => truncateSync(at('snapshots', ids.base, 'fs', 'large'), 10),
  },
  {
    code: 'seal-broken',
    what: 'the mode of a file was changed',
    damage: ({ at, ids }) => chmodSync(at('snapshots', ids.base, 'fs', 'large'), 0o4755),
  },
  {
    code: 'whiteout-in-base',
    what: 'a base holds a character device 0/0',
    damage: ({ at, ids }) =>
      void execFileSync('mknod', [at('snapshots', ids.base, 'fs', 'hidden'), 'c', '0', '0']),
    also: ['seal-broken'],
  },
  {
    code: 'usage-differs',
    what: 'the recorded number of inodes is wrong',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set inodes = 99, seal = null where id = ${ids.base};`),
  },
  {
    code: 'blocks-differ',
    what: 'the recorded size is wrong',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set size = 1 where id = ${ids.base};`),
    status: 'clean',
  },
  {
    code: 'seal-in-use',
    what: 'a layer that was in use at its commit was changed',
    damage: ({ root, at, ids }) => {
      breakRules(root, `update snapshot set in_use = 1 where id = ${ids.base};`);
      write(at('snapshots', ids.base, 'fs', 'late'), 'late');
    },
    status: 'clean',
  },
  {
    code: 'seal-unknown',
    what: 'a seal has an unknown format',
    damage: ({ root, ids }) =>
      breakRules(root, `update snapshot set seal = 'metadata9:abc' where id = ${ids.base};`),
    status: 'clean',
  },
  {
    code: 'layer-unreadable',
    what: 'a layer was moved away and only layers are checked',
    // A check of the layers alone has only the attempt to read it to go by.
    damage: ({ at, ids }) => renameSync(at('snapshots', ids.base, 'fs'), at('away')),
    options: { only: ['layers'] },
  },

  {
    code: 'removal-waiting',
    what: 'a process died before it deleted what it removed',
    damage: ({ root, at }) => {
      leaveOpen(root, `await driver.remove('work');`);
      // Without the index of its log, nobody can have the store open, and the check need not wait and look again.
      rmSync(at('metadata.db-shm'));
    },
    status: 'clean',
  },
  {
    code: 'reservation-abandoned',
    what: 'a process died while it copied a layer',
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
    code: 'run-abandoned',
    what: 'a process died that had made a workspace for a command',
    damage: ({ root, at, ids }) => {
      breakRules(
        root,
        `insert into label values (${ids.work}, 'overlite/run', 'throw-away');
         update snapshot set volatile_boot = 'before' where id = ${ids.work};`,
      );
      mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true });
    },
    status: 'clean',
  },
  {
    code: 'run-abandoned',
    what: 'a process died that was to commit what a command did',
    damage: ({ root, ids }) =>
      breakRules(root, `insert into label values (${ids.work}, 'overlite/run', 'commit');`),
    status: 'clean',
  },
  {
    code: 'volatile-lost',
    what: 'a volatile snapshot was mounted before the last boot',
    damage: ({ root, at, ids }) => {
      breakRules(root, `update snapshot set volatile_boot = 'before' where id = ${ids.work};`);
      mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true });
    },
  },
  {
    code: 'volatile-lost',
    what: 'a volatile mount was made by hand',
    damage: ({ at, ids }) =>
      void mkdirSync(at('snapshots', ids.work, 'work', 'work', 'incompat', 'volatile'), { recursive: true }),
  },
  {
    code: 'open-long',
    what: 'a snapshot has been active for longer than asked for',
    damage: ({ root, ids }) => breakRules(root, `update snapshot set created_us = 1 where id = ${ids.work};`),
    options: { olderThan: 3_600_000 },
    status: 'clean',
  },

  {
    code: 'mount-of-damaged',
    what: 'a mounted snapshot stands on a damaged layer',
    damage: async ({ root, at, ids }) => {
      const unmount = await mountWork(root, at('target'));
      write(at('snapshots', ids.base, 'fs', 'added'), '');
      return unmount;
    },
    also: ['seal-broken'],
  },
  {
    code: 'mount-of-removed',
    what: 'a mounted snapshot was removed',
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
    what: 'a mounted snapshot is not in the database',
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

const lacking = needs('root', 'sqlite3');

describe('findings', () => {
  test('every finding has a case in this test', () => {
    expect([...new Set(cases.map(({ code }) => code))].toSorted()).toEqual(Object.keys(FINDINGS).toSorted());
  });

  test('docs/check.md documents every finding', () => {
    const text = readFileSync(join(import.meta.dirname, '../../docs/check.md'), 'utf8');
    expect(Object.keys(FINDINGS).filter((code) => !text.includes(`\`${code}\``))).toEqual([]);
  });

  test.skipIf(lacking)(
    `check finds nothing in a whole store, and changes nothing${lacking}`,
    async ({ example, examiner }) => {
      const before = describeStore(example.root);
      const report = await examiner.check(example.root, { contents: true });
      expect(report).toMatchObject({ status: 'clean', findings: [], rebuild: [], repairs: [] });
      expect(report.steps.every(({ state, checked }) => state === 'done' && checked > 0)).toBe(true);
      expect(describeStore(example.root)).toBe(before);
    },
  );

  for (const { code, what, damage, also = [], left, status = 'damaged', options = {} } of cases) {
    test.skipIf(lacking)(`check finds ${code}: ${what}${lacking}`, async ({ example, examiner, undo }) => {
      const repairDamage = await damage(example);
      if (repairDamage !== undefined) undo(repairDamage);
      const { root } = example;
      const before = describeStore(root);
      const report = await examiner.check(root, options);
      const expected = [code, ...also].toSorted();
      expect({ codes: codesOf(report), status: report.status }).toEqual({ codes: expected, status });
      const dry = await examiner.check(root, { ...options, repair: true, dryRun: true });
      expect(codesOf(dry)).toEqual(expected);
      expect(dry.repairs.filter(({ outcome }) => outcome === 'done' || outcome === 'gone')).toEqual([]);
      expect(describeStore(root)).toBe(before);

      const contents = contentsOf(root);
      const repaired = await examiner.check(root, { ...options, repair: true });
      expect(codesOf(repaired)).toEqual((left ?? expected).toSorted());
      expect(codesOf(await examiner.check(root, options))).toEqual((left ?? expected).toSorted());
      if (left?.length === 0) {
        expect(repaired.repairs.map((repair) => repair.code)).toContain(code);
        expect(repaired.status).toBe('repaired');
      }
      // A repair may move a file, but deletes none.
      expect(contentsOf(root)).toEqual(expect.arrayContaining(contents));
    });
  }
});

function codesOf({ findings }: Report): FindingCode[] {
  return findings.map(({ code }) => code).toSorted();
}

/** Describes every file of a store, except the index of the log, which any reader may write to. */
function describeStore(root: string): string {
  const lines: string[] = [];
  const describeBelow = (directory: Buffer): void => {
    for (const name of readdirSync(directory, 'buffer')) {
      const path = Buffer.concat([directory, Buffer.from('/'), name]);
      if (name.toString() === 'metadata.db-shm') continue;
      const found = lstatSync(path, { bigint: true });
      const { mode, uid, gid, size, mtimeNs } = found;
      const target = found.isSymbolicLink() ? readlinkSync(path, 'latin1') : '';
      const hash = found.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
      lines.push(
        `${path.toString('latin1')} ${mode.toString(8)} ${uid}:${gid} ${size} ${mtimeNs} ${target}${hash}`,
      );
      if (found.isDirectory()) describeBelow(path);
    }
  };
  describeBelow(Buffer.from(root));
  return lines.toSorted().join('\n');
}

import { describe, expect } from 'vitest';
import { MetadataStore } from '../../../src/metadata/index.ts';
import { RepairWriter } from '../../../src/metadata/repair/repair-writer.ts';
import { breakRules } from '../../support/damage.ts';
import { test as base } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { mustRun, queryShell, runShell } from '../../support/shell.ts';

/** The database of the example, and a writer on it that is opened when a test needs it and closed after the test. */
const test = base.extend<{ file: string; openWriter: () => Promise<RepairWriter> }>({
  file: async ({ example }, use) => {
    await use(example.at('metadata.db'));
  },
  openWriter: async ({ file }, use) => {
    const opened: RepairWriter[] = [];
    await use(async () => {
      const writer = await RepairWriter.open(file);
      opened.push(writer);
      return writer;
    });
    for (const writer of opened) writer.close();
  },
});

const lacking = needs('root', 'sqlite3');

function schemaOf(file: string): unknown {
  return queryShell(file, 'select type, name, sql from sqlite_schema order by type, name');
}

describe.skipIf(lacking)(`RepairWriter${lacking}`, () => {
  test('setUsage() changes a row that the rules protect, and puts the rule back', async ({
    example: { ids },
    file,
    openWriter,
  }) => {
    const schema = schemaOf(file);
    const writer = await openWriter();
    await writer.locked(() => writer.setUsage(ids.base, { inodes: 7, size: 512 }));
    expect(writer.snapshot(ids.base)).toEqual({
      id: ids.base,
      kind: 'committed',
      parentId: null,
      inodes: 7,
      size: 512,
    });
    expect(schemaOf(file)).toEqual(schema);
    const { errors } = runShell(file, `update snapshot set inodes = 8 where id = ${ids.base};\n`);
    expect(errors).toHaveLength(1);
  });

  test('locked() takes everything back if its body throws, the schema included', async ({
    example: { ids },
    file,
    openWriter,
  }) => {
    const schema = schemaOf(file);
    const before = queryShell(file, 'select * from snapshot');
    const writer = await openWriter();
    const repair = (): void => {
      writer.setUsage(ids.base, { inodes: 7, size: 512 });
      writer.remake({
        type: 'view',
        name: 'snapshot_tree',
        problem: 'changed',
        sql: 'create view v as select 1',
      });
      throw new Error('changed my mind');
    };
    await expect(writer.locked(repair)).rejects.toThrow('changed my mind');
    expect(schemaOf(file)).toEqual(schema);
    expect(queryShell(file, 'select * from snapshot')).toEqual(before);
  });

  test('correctHighWater() raises a mark that is too low or missing, and never lowers it', async ({
    example: { root, ids },
    file,
    openWriter,
  }) => {
    breakRules(root, `update high_water set id = 1;`);
    const highest = Math.max(...Object.values(ids));
    const mark = (): unknown => queryShell(file, 'select id from high_water');
    const writer = await openWriter();
    expect(await writer.locked(() => writer.correctHighWater(0))).toBe(true);
    expect(mark()).toEqual([{ id: highest }]);
    expect(await writer.locked(() => writer.correctHighWater(highest))).toBe(false);
    expect(await writer.locked(() => writer.correctHighWater(highest + 100))).toBe(true);
    expect(await writer.locked(() => writer.correctHighWater(1))).toBe(false);
    expect(mark()).toEqual([{ id: highest + 100 }]);
  });

  test('correctHighWater() counts ids that are only in the removal journal, and writes a mark that is gone', async ({
    example: { root },
    file,
    openWriter,
  }) => {
    breakRules(root, `delete from high_water; insert into removal values (4711, 'all', 'deleting');`);
    const writer = await openWriter();
    expect(await writer.locked(() => writer.correctHighWater(5))).toBe(true);
    writer.close();
    const store = await MetadataStore.open(file);
    expect(store.prepare('new').id).toBe(4712);
    store.close();
  });

  test('takeContradictions() removes only the entries that contradict the snapshot of an id, and returns them', async ({
    example: { root, ids },
    file,
    openWriter,
  }) => {
    breakRules(
      root,
      `insert into removal values
         (${ids.base}, 'all', 'deleting'), (${ids.base}, 'work', 'deleting'),
         (${ids.work}, 'work', 'deleting'), (4711, 'all', 'deleting');`,
    );
    const writer = await openWriter();
    expect(writer.journalled(ids.base).toSorted()).toEqual(['all', 'work']);
    const take = (id: number): Promise<unknown> => writer.locked(() => writer.takeContradictions(id));
    expect(await take(ids.base)).toEqual([{ id: ids.base, part: 'all', state: 'deleting' }]);
    expect(await take(ids.work)).toEqual([{ id: ids.work, part: 'work', state: 'deleting' }]);
    expect(await take(4711)).toEqual([]);
    // A committed snapshot may give up its work directory, and an id without a snapshot everything.
    expect(queryShell(file, 'select id, part from removal order by id')).toEqual([
      { id: ids.base, part: 'work' },
      { id: 4711, part: 'all' },
    ]);
  });

  test('takeStrayLabels() removes and returns the labels of no snapshot', async ({
    example: { root, ids },
    openWriter,
  }) => {
    breakRules(root, `insert into label values (4711, 'stray', 'label');`);
    const writer = await openWriter();
    expect(await writer.locked(() => writer.takeStrayLabels())).toEqual([
      { snapshot_id: 4711, key: 'stray', value: 'label' },
    ]);
    expect(await writer.locked(() => writer.takeStrayLabels())).toEqual([]);
    expect(writer.labels(ids.base)).toEqual({ of: 'base' });
  });

  test('remake() replaces views, triggers and indexes, and leaves tables alone', async ({
    file,
    openWriter,
  }) => {
    const schema = schemaOf(file);
    mustRun(
      file,
      `drop trigger snapshot_delete;
       drop index snapshot_child;
       drop view snapshot_tree;
       create view snapshot_tree (tree) as select name from snapshot;`,
    );
    const writer = await openWriter();
    for (const difference of schema as { type: string; name: string; sql: string | null }[]) {
      const { type, name, sql } = difference;
      // SQLite's own have no SQL.
      if (sql !== null) await writer.locked(() => writer.remake({ type, name, sql, problem: 'changed' }));
    }
    expect(schemaOf(file)).toEqual(schema);
    expect(queryShell(file, 'select count(*) as rows from snapshot')).toEqual([{ rows: 6 }]);
  });
});

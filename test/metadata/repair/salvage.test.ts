import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { salvage } from '../../../src/metadata/repair/salvage.ts';
import type { Rebuilt } from '../../../src/metadata/repair/rebuilt.ts';
import { breakRules } from '../../support/damage.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { queryShell } from '../../support/shell.ts';

const lacking = needs('root', 'sqlite3');

async function salvageTo(file: string, damaged: string): Promise<Rebuilt> {
  const scratch = `${file}-scratch`;
  mkdirSync(scratch);
  return await salvage({ damaged, file, scratch, ids: [] });
}

describe.skipIf(lacking)(`salvage()${lacking}`, () => {
  test('salvage() says of each row that cannot be used why it is lost', async ({ example, place }) => {
    const { root, ids } = example;
    breakRules(
      root,
      `update snapshot set kind = 'other' where id = ${ids.reader};
       update snapshot set name = '' where id = ${ids.scratch};
       update snapshot set created_us = -1 where id = ${ids.app};
       insert into snapshot (id, name, kind, created_us, updated_us) values (-5, 'negative', 'active', 1, 1);`,
    );
    const { snapshots, lost } = await salvageTo(join(place, 'new.db'), example.at('metadata.db'));
    expect(snapshots).toBe(2);
    expect(lost.toSorted((a, b) => a.id - b.id)).toEqual([
      { id: -5, name: 'negative', why: 'its id is not a positive integer' },
      { id: ids.app, name: 'app', why: 'its created_us is not an integer of at least 0' },
      { id: ids.work, name: 'work', why: 'one of its ancestors is lost' },
      { id: ids.scratch, name: '', why: 'the name is empty' },
      { id: ids.reader, name: 'reader', why: 'it has an unknown kind' },
    ]);
  });

  test('salvage() raises the high-water mark to no id that a store can never have assigned', async ({
    example,
    place,
  }) => {
    breakRules(
      example.root,
      `insert into snapshot (id, name, kind, created_us, updated_us) values (1 << 60, 'huge', 'other', 1, 1);
       insert into snapshot (id, name, kind, created_us, updated_us) values (4711, 'lost', 'other', 1, 1);
       update high_water set id = 1 << 60;`,
    );
    const file = join(place, 'new.db');
    const { lost } = await salvageTo(file, example.at('metadata.db'));
    expect(lost.map(({ name }) => name)).toEqual(['lost', 'huge']);
    expect(queryShell(file, 'select id from high_water')).toEqual([{ id: 4711 }]);
  });
});

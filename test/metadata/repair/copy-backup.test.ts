import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { copyBackup } from '../../../src/metadata/repair/copy-backup.ts';
import { breakRules } from '../../support/damage.ts';
import { makeFirstVersion } from '../../support/first-version.ts';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { mustRun, queryShell } from '../../support/shell.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`copyBackup()${lacking}`, () => {
  test('copyBackup() empties the removal journal of the copy, returns it, and leaves the backup as it is', async ({
    example: { root, ids, at },
    place,
  }) => {
    breakRules(
      root,
      `insert into removal values (4711, 'all', 'deleting'), (4712, 'all', 'reserved'), (${ids.base}, 'work', 'deleting');
       update high_water set id = 4712;`,
    );
    const before = readFileSync(at('metadata.db'));
    const file = join(place, 'new.db');
    expect(await copyBackup(at('metadata.db'), file)).toEqual({
      snapshots: 6,
      lost: [],
      journal: [
        { id: ids.base, part: 'work', state: 'deleting' },
        { id: 4711, part: 'all', state: 'deleting' },
        { id: 4712, part: 'all', state: 'reserved' },
      ],
    });
    expect(queryShell(file, 'select count(*) as entries from removal')).toEqual([{ entries: 0 }]);
    expect(queryShell(file, 'select id from high_water')).toEqual([{ id: 4712 }]);
    expect(readFileSync(at('metadata.db')).equals(before)).toBe(true);
  });

  test('copyBackup() migrates the copy of a backup of an older version, and backs up nothing', async ({
    example: { at },
    place,
  }) => {
    const backup = at('metadata.db');
    makeFirstVersion(backup);
    const file = join(place, 'new.db');
    expect((await copyBackup(backup, file)).snapshots).toBe(6);
    expect(queryShell(file, 'select volatile_boot from snapshot limit 1')).toEqual([{ volatile_boot: null }]);
    expect(mustRun(backup, 'pragma user_version;\n')).toBe('1\n');
    expect(readdirSync(place).toSorted()).toEqual(['example', 'new.db']);
  });

  test('copyBackup() refuses a backup of a newer version', async ({ example: { at }, place }) => {
    mustRun(at('metadata.db'), 'pragma user_version = 4711;');
    await expect(copyBackup(at('metadata.db'), join(place, 'new.db'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('4711') as string,
    });
  });
});

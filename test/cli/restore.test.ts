import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite restore${lacking}`, () => {
  test('`restore` replaces a lost database with a backup', ({ place, example, overlite, printed }) => {
    const backup = join(place, 'backup.db');
    printed('backup', backup);
    rmSync(example.at('metadata.db'));
    expect(overlite('check').status).toBe(4);
    const nothing = overlite('restore');
    expect(nothing.status).toBe(1);
    expect(nothing.stderr).toMatch(/FAILED_PRECONDITION: .*there is no backup.*\n {2}hint: /);
    const { status, stdout } = overlite('restore', backup);
    expect(status).toBe(0);
    expect(stdout).toContain(`6 snapshots were restored from ${backup}.`);
    expect(overlite('check').status).toBe(0);
  });

  test('`restore --salvage` rebuilds the database from what can be read of it', ({ json, overlite }) => {
    expect(json('restore', '--salvage')).toMatchObject({ snapshots: 6, from: null, lost: [] });
    expect(overlite('check').status).toBe(0);
  });

  test('`restore` refuses a backup with --salvage, and two backups', async ({ place, printed, together }) => {
    const backup = join(place, 'backup.db');
    printed('backup', backup);
    expect(await together(['restore', backup, '--salvage'], ['restore', 'a', 'b'])).toMatchObject([
      { status: 1 },
      { status: 2 },
    ]);
  });
});

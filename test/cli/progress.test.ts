import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root', 'script');

describe.skipIf(lacking)(`progress${lacking}`, () => {
  test('`cleanup` and `backup` show a bar on a terminal', async ({ place, example, inTerminal }) => {
    const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
    for (let n = 1; n <= 3; n += 1) {
      await driver.prepare(`k${n}`);
      await driver.remove(`k${n}`);
    }
    await driver.close();
    expect(inTerminal('cleanup')).toMatch(/deleting .*[━─]{5}.* of 3[^]*3 removed, 0 still in use\n$/);
    expect(inTerminal(`backup ${join(place, 'backup.db')}`)).toMatch(
      /copying .*[━─]{5}.* of [\d.]+ KiB[^]*backup\.db is written\n$/,
    );
  });

  test('`check` and `checkpoint` show a bar on a terminal', ({ inTerminal }) => {
    expect(inTerminal('check')).toMatch(/database .*─{5}/);
    expect(inTerminal('checkpoint now work')).toMatch(/now is committed: 2 inodes, 8\.0 KiB\n$/);
  });
});

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test as base } from '../support/fixtures.ts';
import { commitLayer } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root', 'sqlite3');

const test = base.extend<{
  /** A volatile active snapshot on a base. */
  key: string;
  /** Runs SQL in the shell. */
  sql: (script: string) => string;
}>({
  key: async ({ driver }, use) => {
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base', { volatile: true });
    await use('k');
  },
  sql: async ({ root }, use) => {
    await use((script) => mustRun(join(root, 'metadata.db'), script));
  },
});

/** Another boot is what the database says, since this machine cannot be started anew for a test. */
const EARLIER_BOOT = `update snapshot set volatile_boot = 'an earlier one' where name = 'k';`;

describe.skipIf(lacking)(`a volatile snapshot${lacking}`, () => {
  test('a snapshot is volatile until it is committed, and its mounts say so', async ({ driver, key }) => {
    expect((await driver.stat(key)).volatile).toBe(true);
    expect((await driver.mounts(key))[0]?.options).toContain('volatile');
    expect((await driver.prepare('l', 'base'))[0]?.options).not.toContain('volatile');
    expect((await driver.commit('n', key)).volatile).toBe(false);
    expect((await driver.stat('l')).volatile).toBe(false);
    await driver.transaction((tx) => tx.prepare('in one', 'base', { volatile: true }));
    expect((await driver.stat('in one')).volatile).toBe(true);
  });

  test('prepare() with volatile that is not a boolean is a TypeError, and view() does not know it', async ({
    driver,
  }) => {
    await commitLayer(driver, 'base');
    const wrong = { volatile: 'yes' as unknown as boolean };
    await expect(driver.prepare('x', 'base', wrong)).rejects.toThrow(TypeError);
    await expect(driver.view('x', 'base', { volatile: true } as {})).rejects.toThrow(TypeError);
  });

  test('mount() mounts a volatile snapshot again in the same boot, over the mark that overlayfs leaves', async ({
    driver,
    key,
    target,
  }) => {
    for (let i = 1; i <= 3; i += 1) {
      await driver.mount(key, target);
      const { directory } = await driver.stat(key);
      expect(existsSync(join(directory ?? '', 'work', 'work', 'incompat', 'volatile'))).toBe(true);
      sh(`echo ${i} >> log`, target);
      await driver.unmount(target);
    }
    const { directory } = await driver.commit('n', key);
    expect(readFileSync(`${directory}/fs/log`, 'utf8')).toBe('1\n2\n3\n');
    await driver.cleanup();
    expect(existsSync(`${directory}/work`)).toBe(false);
  });

  test('a volatile snapshot that was mounted in an earlier boot is DATA_LOSS', async ({
    driver,
    key,
    target,
    sql,
  }) => {
    await driver.mount(key, target);
    await driver.unmount(target);
    sql(EARLIER_BOOT);
    const lost = { code: 'DATA_LOSS' };
    await expect(driver.mount(key, target)).rejects.toMatchObject(lost);
    await expect(driver.commit('n', key)).rejects.toMatchObject(lost);
    await expect(driver.checkpoint('n', key)).rejects.toMatchObject(lost);
    await expect(driver.seal(key)).rejects.toMatchObject(lost);
    expect((await driver.stat(key)).kind).toBe('active');
    await driver.remove(key);
  });

  test('a volatile snapshot that was not mounted in an earlier boot can be used', async ({
    driver,
    key,
    target,
    sql,
  }) => {
    sql(EARLIER_BOOT);
    await driver.mount(key, target);
    sh('echo new > file', target);
    await driver.unmount(target);
    await driver.mount(key, target);
    await driver.unmount(target);
    await driver.commit('n', key);
  });

  test('SQL in the shell cannot change whether a snapshot is volatile', ({ key, sql }) => {
    const change = (to: string, where: string) => (): string =>
      sql(`update snapshot set volatile_boot = ${to} where name = '${where}';`);
    expect(change('null', key)).toThrow(/volatile/);
    expect(change("'x'", 'base')).toThrow(/volatile|CHECK/);
  });
});

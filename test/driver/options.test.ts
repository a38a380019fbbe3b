import { existsSync } from 'node:fs';
import { inspect } from 'node:util';
import { describe, expect } from 'vitest';
import { type DriverOptions, OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer } from '../support/layers.ts';

/** Values with how they are written, for titles. */
function written(...values: readonly unknown[]): (readonly [text: string, value: unknown])[] {
  return values.map((value) => [inspect(value), value]);
}

describe('the options of open()', () => {
  const wrongValues = written(
    { durability: 'none' },
    { busyTimeout: -1 },
    { busyTimeout: Number.NaN },
    { mountOptions: ['lowerdir=/etc'] },
    { mountOptions: [''] },
    { mountOptions: ['xino=off,volatile'] },
    { seal: 'none' },
  );
  test.for(wrongValues)(
    'open() with %s is INVALID_ARGUMENT and makes nothing',
    async ([, options], { root }) => {
      await expect(OverlayDriver.open(root, options as DriverOptions)).rejects.toMatchObject({
        name: 'SnapshotError',
        code: 'INVALID_ARGUMENT',
      });
      expect(existsSync(root)).toBe(false);
    },
  );

  const wrongTypes = written(
    { durability: 7 },
    { asyncRemove: 'yes' },
    { mountOptions: 'x' },
    { mountOptions: [7] },
    { nonsense: 1 },
    [],
    'x',
    null,
  );
  test.for(wrongTypes)('open() with %s is a TypeError', async ([, options], { root }) => {
    await expect(OverlayDriver.open(root, options as DriverOptions)).rejects.toThrow(TypeError);
  });

  test('mounts() adds mountOptions to the options of overlays, and not twice', async ({ root }) => {
    const options = async (...mountOptions: string[]): Promise<readonly string[]> => {
      await using driver = await OverlayDriver.open(root, { mountOptions, backups: false });
      if (!(await driver.exists('base'))) {
        await commitLayer(driver, 'base', null, '');
        await driver.prepare('k', 'base');
      }
      return (await driver.mounts('k'))[0]?.options.slice(3) ?? [];
    };
    expect(await options('xino=off', 'index=on')).toEqual(['xino=off', 'index=on']);
    expect(await options()).toEqual(['index=off']);
  });
});

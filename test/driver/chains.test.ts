import { join } from 'node:path';
import { expect } from 'vitest';
import { Chains } from '../../src/driver/chains.ts';
import { MetadataStore, OverlayDriver } from '../../src/index.ts';
import { openDatabase } from '../../src/metadata/open.ts';
import { RowReader } from '../../src/metadata/row-reader.ts';
import { Transactor } from '../../src/metadata/transactor.ts';
import { breakRules } from '../support/damage.ts';
import { test } from '../support/fixtures.ts';
import { commitLayer } from '../support/layers.ts';
import { needs } from '../support/needs.ts';

/** Commits an empty layer. @returns its id */
async function commitEmpty(
  driver: OverlayDriver,
  name: string,
  parent: string | null = null,
): Promise<number> {
  await commitLayer(driver, name, parent, '');
  return (await driver.stat(name)).id;
}

/** The ids of the layers below a snapshot, nearest first, as its mounts have them. */
async function lowersOf(driver: OverlayDriver, key: string): Promise<number[]> {
  const [mount] = await driver.mounts(key);
  const lower = mount?.options.find((option) => option.startsWith('lowerdir=')) ?? '';
  return [...lower.matchAll(/\/snapshots\/(\d+)\/fs/g)].map(([, id]) => Number(id));
}

test('mounts() is right for an id that a transaction gave back and another snapshot got', async ({
  driver,
}) => {
  const below = await commitEmpty(driver, 'below');
  const other = await commitEmpty(driver, 'other');
  const taken: number[] = [];
  await expect(
    driver.transaction((tx) => {
      tx.prepare('work', 'below');
      taken.push(tx.commit('layer', 'work').id);
      tx.prepare('on it', 'layer');
      throw new Error('changed my mind');
    }),
  ).rejects.toThrow('changed my mind');
  expect(await commitEmpty(driver, 'layer', 'other')).toBe(taken[0]);
  await driver.prepare('on it', 'layer');
  expect(await lowersOf(driver, 'on it')).toEqual([taken[0], other]);
  expect(below).not.toBe(other);
});

test('mounts() is right after an operation of a transaction failed that had read a chain', async ({
  driver,
}) => {
  const below = await commitEmpty(driver, 'below');
  const other = await commitEmpty(driver, 'other');
  await driver.transaction((tx) => {
    tx.prepare('work', 'other');
    const [mount] = tx.prepare('first', 'below');
    expect(mount?.options.join()).toContain(`/${below}/fs`);
    expect(() => tx.prepare('first', 'other')).toThrow('taken');
    tx.commit('layer', 'work');
    tx.prepare('second', 'layer');
  });
  expect(await lowersOf(driver, 'first')).toEqual([below]);
  expect(await lowersOf(driver, 'second')).toEqual([(await driver.stat('layer')).id, other]);
});

test('Chains gives the right layers every time of more chains than it keeps', async ({ place }) => {
  const db = await openDatabase(join(place, 'other.db'), { readonly: false, busyTimeout: 1000 });
  const transactor = new Transactor(db);
  const store = new MetadataStore(db, transactor);
  try {
    // Two ids with this between them are more than a quarter of what is kept.
    const separator = '-'.repeat(3 * 1024 * 1024);
    const chains = new Chains(new RowReader(db), transactor, separator);
    const expected = ['a', 'b', 'c', 'd'].map((name) => {
      store.prepare('work');
      const bottom = store.commit(`${name} bottom`, 'work').id;
      store.prepare('work', `${name} bottom`);
      const top = store.commit(`${name} top`, 'work').id;
      return { name, parentId: top, ids: [top, bottom] };
    });
    for (let round = 0; round < 2; round += 1) {
      for (const { ids, ...snapshot } of expected) {
        const { lowers, depth } = chains.ancestorsOf(snapshot);
        expect(lowers.split(separator).map(Number)).toEqual(ids);
        expect(depth).toBe(2);
        expect(chains.ancestorsOf(snapshot).lowers === lowers).toBe(true);
      }
    }
  } finally {
    store.close();
  }
});

const lacking = needs('sqlite3');

test.skipIf(lacking)(
  `mounts() is DATA_LOSS if the row of the parent is missing${lacking}`,
  async ({ example }) => {
    breakRules(example.root, `delete from snapshot where id = ${example.ids.app};`);
    await using driver = await OverlayDriver.open(example.root, { backups: false });
    await expect(driver.mounts('work')).rejects.toMatchObject({ code: 'DATA_LOSS' });
  },
);

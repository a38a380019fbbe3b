import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Chains } from '../../src/driver/chains.ts';
import { MetadataStore, OverlayDriver } from '../../src/index.ts';
import { breakRules } from '../support/damage.ts';
import { missing } from '../support/tree.ts';
import { makeRoot } from '../support/store.ts';

let made: ReturnType<typeof makeRoot>;
let driver: OverlayDriver;
beforeEach(async () => {
  made = makeRoot();
  driver = await OverlayDriver.open(made.root);
});
afterEach(async () => {
  await driver.close();
  made.remove();
});

async function base(name: string, parent?: string): Promise<number> {
  await driver.prepare(`${name} work`, parent);
  return (await driver.commit(name, `${name} work`)).id;
}

/** The ids of the layers below a snapshot, nearest first, as its mounts have them. */
async function lowersOf(key: string): Promise<number[]> {
  const [mount] = await driver.mounts(key);
  const lower = mount?.options.find((option) => option.startsWith('lowerdir=')) ?? '';
  return [...lower.matchAll(/\/snapshots\/(\d+)\/fs/g)].map(([, id]) => Number(id));
}

test('what a transaction took back is not kept: its ids are given to others', async () => {
  const below = await base('below');
  const other = await base('other');
  const taken: number[] = [];
  await expect(
    driver.transaction((tx) => {
      tx.prepare('work', 'below');
      taken.push(tx.commit('layer', 'work').id);
      tx.prepare('on it', 'layer');
      throw new Error('changed my mind');
    }),
  ).rejects.toThrow('changed my mind');
  expect(await base('layer', 'other')).toBe(taken[0]);
  await driver.prepare('on it', 'layer');
  expect(await lowersOf('on it')).toEqual([taken[0], other]);
  expect(below).not.toBe(other);
});

test('what a part of a transaction took back is not kept either', async () => {
  const below = await base('below');
  await base('other');
  await driver.transaction((tx) => {
    tx.prepare('work', 'other');
    const [mount] = tx.prepare('first', 'below');
    expect(mount?.options.join()).toContain(`/${below}/fs`);
    expect(() => tx.prepare('first', 'other')).toThrow('taken');
    tx.commit('layer', 'work');
    tx.prepare('second', 'layer');
  });
  expect(await lowersOf('first')).toEqual([below]);
  expect(await lowersOf('second')).toEqual([
    (await driver.stat('layer')).id,
    (await driver.stat('other')).id,
  ]);
});

test('of more chains than are kept, each is right every time', async () => {
  const store = await MetadataStore.open(join(made.root, 'other.db'));
  try {
    // Two ids with this between them are more than a quarter of what is kept.
    const between = '-'.repeat(3 * 1024 * 1024);
    const chains = new Chains(store, between);
    const expected = ['a', 'b', 'c', 'd'].map((name) => {
      store.prepare('work');
      const bottom = store.commit(`${name} bottom`, 'work').id;
      store.prepare('work', `${name} bottom`);
      const top = store.commit(`${name} top`, 'work').id;
      return { name, parentId: top, ids: [top, bottom] };
    });
    for (let round = 0; round < 2; round += 1) {
      for (const { ids, ...snapshot } of expected) {
        const { lowers, depth } = chains.below(snapshot);
        expect(lowers.split(between).map(Number)).toEqual(ids);
        expect(depth).toBe(2);
        expect(chains.below(snapshot).lowers === lowers).toBe(true);
      }
    }
  } finally {
    store.close();
  }
});

const needs = missing('sqlite3').length === 0 ? '' : ' (needs sqlite3)';

test.skipIf(needs !== '')(`nothing is mounted on a parent that is not there${needs}`, async () => {
  const id = await base('base');
  await driver.prepare('work', 'base');
  await driver.close();
  breakRules(made.root, `delete from snapshot where id = ${id};`);
  driver = await OverlayDriver.open(made.root);
  await expect(driver.mounts('work')).rejects.toMatchObject({ code: 'DATA_LOSS' });
});

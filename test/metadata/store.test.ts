import { describe, expect } from 'vitest';
import { test } from '../support/fixtures.ts';

/** The code of the error that `body` throws. */
function code(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error instanceof Error && 'code' in error ? error.code : error;
  }
  return 'nothing was thrown';
}

describe('MetadataStore', () => {
  test('a metadata store prepares, commits, views, removes and deletes', ({ store }) => {
    store.prepare('work', null, { labels: { a: '1', empty: '' } });
    const committed = store.commit('base', 'work', { usage: { inodes: 3, size: 4096 }, labels: { b: '2' } });
    expect(committed).toMatchObject({
      id: 1,
      name: 'base',
      kind: 'committed',
      parent: null,
      labels: { b: '2' },
      inUse: null,
    });
    expect(store.view('look', 'base')).toEqual(store.stat('look'));
    expect(store.find('base').usage).toEqual({ inodes: 3, size: 4096 });
    expect(code(() => store.delete('base'))).toBe('FAILED_PRECONDITION');
    expect(store.remove('look')).toEqual({ id: 2, part: 'all' });
    expect(store.delete('base')).toEqual({ id: 1, part: 'all' });
    expect(store.removals()).toEqual([
      { id: 1, part: 'all' },
      { id: 2, part: 'all' },
    ]);
    store.forget(store.removals());
    expect(store.removals()).toEqual([]);
    store.close();
    store.close();
    expect(code(() => store.stat('base'))).toBe('FAILED_PRECONDITION');
  });

  test('an id that is reserved for a copy becomes a committed snapshot, or is given up', ({ store }) => {
    store.prepare('in work');
    store.commit('base', 'in work');
    store.prepare('work', 'base');
    const first = store.reserve();
    const second = store.reserve();
    expect([first, second]).toEqual([3, 4]);
    expect(store.reservations()).toEqual([3, 4]);
    expect(store.removals()).toEqual([{ id: 1, part: 'work' }]);
    const copy = store.checkpoint('copy', 'work', first, { usage: { inodes: 2, size: 512 }, inUse: false });
    expect(copy).toMatchObject({ id: 3, kind: 'committed', parent: 'base', inUse: false });
    expect(store.find('work').kind).toBe('active');
    expect(store.reservations()).toEqual([4]);
    expect(code(() => store.checkpoint('again', 'work', first))).toBe('FAILED_PRECONDITION');
    expect(code(() => store.checkpoint('copy', 'work', second))).toBe('ALREADY_EXISTS');
    expect(code(() => store.checkpoint('other', 'missing', second))).toBe('NOT_FOUND');
    expect(code(() => store.checkpoint('other', 'base', second))).toBe('FAILED_PRECONDITION');
    expect(store.abandon(second)).toBe(true);
    expect(store.abandon(second)).toBe(false);
    expect(store.abandon(first)).toBe(false);
    expect(store.removals()).toContainEqual({ id: 4, part: 'all' });
    expect(store.prepare('next').id).toBe(5);
    expect(store.highWater()).toBe(5);
  });

  test('transaction() is all or nothing, and one within it fails alone', ({ store }) => {
    expect(() =>
      store.transaction(() => {
        store.prepare('a');
        throw new Error('changed my mind');
      }),
    ).toThrow('changed my mind');
    expect(store.exists('a')).toBe(false);
    store.transaction((tx) => {
      tx.prepare('b');
      expect(code(() => tx.transaction(() => [tx.prepare('c'), tx.prepare('b')]))).toBe('ALREADY_EXISTS');
      tx.prepare('d');
    });
    expect([...store.snapshots()].map(({ name }) => name)).toEqual(['b', 'd']);
    expect(() => store.transaction(async () => store.prepare('e'))).toThrow(TypeError);
    expect(store.exists('e')).toBe(false);
  });

  test('a label keeps any text as it is', ({ store }) => {
    const labels = { __proto__x: '1', 'a.b/c d': '\n"\u{1F600}\\', ['__proto__']: 'own' };
    store.prepare('a', null, { labels });
    expect(new Map(Object.entries(store.stat('a').labels))).toEqual(new Map(Object.entries(labels)));
  });
});

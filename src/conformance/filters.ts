import assert from 'node:assert/strict';
import type { Snapshotter } from '../snapshot.ts';
import { type Body, makeCommitted, refuses } from './support.ts';

async function listed(s: Snapshotter, ...filters: string[]): Promise<string> {
  const names: string[] = [];
  for await (const { name } of s.snapshots(...filters)) names.push(name);
  return names.join(' ');
}

async function fill(s: Snapshotter): Promise<void> {
  await makeCommitted(s, 'a');
  await s.update('a', { labels: { color: 'red', 'x.y/z': '1' } });
  await makeCommitted(s, 'b', 'a');
  await s.update('b', { labels: { color: 'blue' } });
  await s.prepare('k', 'b', { labels: { color: 'red' } });
  await s.view('v', 'a');
}

/** The filters of listings. */
export const filterCases: Readonly<Record<string, Body>> = {
  'filters have the syntax of containerd': async (s) => {
    await fill(s);
    const expected: readonly [string[], string][] = [
      [[], 'a b k v'],
      [[''], 'a b k v'],
      [['name==b'], 'b'],
      [['name!=b'], 'a k v'],
      [['name~=^[ak]$'], 'a k'],
      [['parent==a'], 'b v'],
      [['parent==""'], 'a'],
      [['kind==committed'], 'a b'],
      [['kind==active'], 'k'],
      [['kind==view'], 'v'],
      [['kind!=committed'], 'k v'],
      [['labels.color'], 'a b k'],
      [['labels.color==red'], 'a k'],
      [['labels.color!=red'], 'b v'],
      [['labels."color"~=^(red|blue)$'], 'a b k'],
      [['labels."x.y/z"==1'], 'a'],
      [['labels.color==red,kind==committed'], 'a'],
      [['name==v', 'labels.color==blue'], 'b v'],
      [['name==missing'], ''],
    ];
    for (const [filters, names] of expected)
      assert.equal(await listed(s, ...filters), names, JSON.stringify(filters));
    const walked: string[] = [];
    await s.walk(
      ({ name }) => {
        walked.push(name);
      },
      'labels.color==red',
      'name==b',
    );
    assert.deepEqual(walked, ['a', 'b']);
  },

  'a filter that does not parse is refused': async (s) => {
    await fill(s);
    for (const filter of [
      'name=b',
      '==',
      'name==',
      'name==b,',
      'color==red',
      'name~=(',
      'name=="b',
      'labels',
      'a\0b',
    ]) {
      await refuses(s, 'INVALID_ARGUMENT', () => listed(s, filter));
      await refuses(s, 'INVALID_ARGUMENT', () => s.walk(() => {}, 'name==a', filter));
    }
  },
};

import { describe, expect, test } from 'vitest';
import { Layout } from '../../src/layers/layout.ts';

const layout = new Layout('/srv/store');

describe('idOf()', () => {
  test.for([
    ['/srv/store/snapshots/12', 12],
    ['/srv/store/snapshots/12/', 12],
    ['/srv/store/snapshots/12/fs/snapshots/3', 12],
    ['/srv/store/../store/snapshots/12/work', 12],
    ['snapshots/12/fs', 12],
    ['./snapshots//12', 12],
    ['snapshots/9007199254740991', 9_007_199_254_740_991],
  ] as const)('idOf(%j) is %d', ([path, id]) => expect(layout.idOf(path)).toBe(id));

  test.for([
    '/srv/store',
    '/srv/store/snapshots',
    '/srv/store/snapshots/012',
    '/srv/store/snapshots/0',
    '/srv/store/snapshots/12x',
    '/srv/store/snapshots/-1',
    '/srv/store/snapshots/12345678901234567890',
    '/srv/store/lost+found/snapshots/12',
    '/srv/store-2/snapshots/12',
    '/srv/snapshots/12',
    'snapshots/../12',
    '../store/snapshots/12',
    '12/fs',
    '',
  ])('idOf(%j) finds no snapshot', (path) => expect(layout.idOf(path)).toBeUndefined());

  test('idOf() knows the paths of the layout itself', () => {
    expect([layout.directory(7), layout.fs(7), layout.work(7)].map((path) => layout.idOf(path))).toEqual([
      7, 7, 7,
    ]);
  });
});

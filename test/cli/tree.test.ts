import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite tree${lacking}`, () => {
  test('`tree` draws the snapshots of a store, or those built on one', ({ printed, json }) => {
    expect(printed('tree').replaceAll(/, \d+s\)/g, ')')).toBe(
      [
        'base  (committed, 32.0 KiB)',
        '└─ app  (committed, 8.0 KiB)',
        '   ├─ work  (active)',
        '   └─ reader  (view)',
        'scratch  (active)',
        'empty  (view)',
        '',
      ].join('\n'),
    );
    expect(json('tree', 'app')).toMatchObject([
      { name: 'app', children: [{ name: 'work' }, { name: 'reader' }] },
    ]);
  });
});

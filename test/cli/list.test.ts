import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite list${lacking}`, () => {
  test('`list --kind` prints a table of the snapshots of a kind', ({ printed }) => {
    expect(printed('list', '--kind', 'committed').replaceAll(/ *\d+s$/gm, '  now')).toBe(
      [
        'NAME  KIND       PARENT      SIZE  INODES  AGE',
        'base  committed  -       32.0 KiB       4  now',
        'app   committed  base     8.0 KiB       2  now',
        '',
      ].join('\n'),
    );
  });

  test('`list` takes filters, and refuses one that does not parse', ({ json, overlite }) => {
    expect(json('list', 'labels.of==work', 'name==base')).toMatchObject([{ name: 'base' }, { name: 'work' }]);
    expect(json('list', 'name==nothing')).toEqual([]);
    expect(overlite('list', 'name==').stderr).toContain('INVALID_ARGUMENT');
  });
});

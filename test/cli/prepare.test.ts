import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite prepare and view${lacking}`, () => {
  test('`prepare` makes an active snapshot with labels', ({ printed, json }) => {
    expect(printed('prepare', 'fork', 'app', '--label', 'a=b', '--label', 'c=d=e')).toBe(
      'fork is active, on app\n',
    );
    expect(json('info', 'fork')).toMatchObject({ labels: { a: 'b', c: 'd=e' }, chain: ['app', 'base'] });
  });

  test('`view --json` prints the view and its mounts', ({ json }) => {
    expect(json('view', 'look', 'app')).toMatchObject({
      key: 'look',
      kind: 'view',
      parent: 'app',
      mounts: [{ type: 'overlay', source: 'overlay' }],
    });
  });
});

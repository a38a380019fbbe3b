import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite remove and delete${lacking}`, () => {
  test('`remove` and `delete` take snapshots away, and `cleanup` their directories', ({ printed, json }) => {
    expect(printed('remove', 'reader')).toBe('reader is removed\n');
    expect(json('remove', 'work', 'scratch')).toEqual([
      { name: 'work', deferred: null },
      { name: 'scratch', deferred: null },
    ]);
    expect(json('delete', 'app', 'base')).toEqual([
      { name: 'app', deferred: null },
      { name: 'base', deferred: null },
    ]);
    expect(printed('cleanup')).toMatch(/^\d removed, 0 still in use\n$/);
  });

  test('`remove` and `delete` take all that are named, or none', ({ overlite, rows }) => {
    const before = rows();
    const { status, stderr } = overlite('remove', 'work', 'scratch', 'nowhere');
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'overlite: NOT_FOUND: there is no snapshot "nowhere"\n',
    });
    expect(overlite('delete', 'app').stderr).toMatch(/FAILED_PRECONDITION: "app" has children/);
    expect(rows()).toEqual(before);
  });
});

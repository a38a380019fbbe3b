import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite label${lacking}`, () => {
  test('`label` sets, takes away, replaces and prints labels', ({ printed, json, overlite }) => {
    expect(printed('label', 'base', 'new=1', 'of-')).toBe('new=1\n');
    expect(printed('label', 'base')).toBe('new=1\n');
    expect(json('label', 'base', 'only=a b', '--replace')).toEqual({ only: 'a b' });
    expect(printed('label', 'base')).toBe('only="a b"\n');
    expect(overlite('label', 'base', 'nonsense')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('neither key=value nor key-'),
    });
    expect(json('label', 'base')).toEqual({ only: 'a b' });
  });
});

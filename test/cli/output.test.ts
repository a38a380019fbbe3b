import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root', 'script');

describe.skipIf(lacking)(`what commands print${lacking}`, () => {
  test('control and invisible characters in names are escaped in all output', ({ printed, overlite }) => {
    const hidden = ['c1\u009B31m', 'right to left\u202E', 'line\u2028'];
    for (const key of hidden) printed('prepare', key, 'app');
    const listed = printed('list', 'kind==active');
    for (const key of hidden) {
      expect(listed).not.toContain(key);
      expect(overlite('prepare', key).stderr).not.toContain(key);
    }
    const removed = printed('remove', ...hidden)
      .trimEnd()
      .split('\n');
    expect(removed.map((line) => JSON.parse(line.replace(' is removed', '')) as unknown)).toEqual(hidden);
  });

  test('commands take a name that begins with a dash and has control characters', ({ printed, json }) => {
    const odd = '-\u001B[31m\nname';
    printed('prepare', '--', odd, 'app');
    expect(printed('list', 'kind==active')).toContain(String.raw`"-\u001b[31m\nname"`);
    expect(json('info', '--', odd)).toMatchObject({ name: odd });
    expect(printed('remove', '--', odd)).toBe(`${JSON.stringify(odd)} is removed\n`);
  });

  test('`list` has colours on a terminal that can show them, unless NO_COLOR is set', ({ inTerminal }) => {
    expect(inTerminal('list')).toContain('\u001B[32mactive\u001B[39m');
    expect(inTerminal('list', { NO_COLOR: '1' })).not.toContain('\u001B[');
    expect(inTerminal('list', { TERM: 'dumb' })).not.toContain('\u001B[');
  });
});

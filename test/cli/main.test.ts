import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe('overlite without a store', () => {
  test.override('storeRoot', ({ root }) => root);

  test.for(['--help', '--version', 'demo --help'])(
    '`overlite %s` prints something and ends with status 0',
    (args, { overlite }) => {
      const { status, stdout } = overlite(...args.split(' '));
      expect(status).toBe(0);
      expect(stdout).not.toBe('');
    },
  );

  test.for(['nonsense', 'demo --nonsense', 'demo a b'])(
    '`overlite %s` is wrong usage: it prints an error and ends with status 2',
    (args, { overlite }) => {
      const { status, stderr } = overlite(...args.split(' '));
      expect(status).toBe(2);
      expect(stderr).toMatch(/error:/);
    },
  );
});

describe.skipIf(lacking)(`overlite on a store${lacking}`, () => {
  test('wrong usage ends with status 2 and a suggestion, and changes nothing', async ({
    together,
    overlite,
    rows,
  }) => {
    const before = rows();
    const wrong = [
      ['list', '--jsn'],
      ['prepare'],
      ['prepare', '-x', 'app'],
      ['prepare', 'a', 'b', 'c'],
      ['prepare', 'a', '--label', 'nonsense'],
      ['commit', 'n', 'k', '--seal', 'wax'],
      ['prepare', 'a', '--busy-timeout', 'soon'],
      [],
    ];
    const ended = await together(...wrong);
    expect(ended.map(({ status, args }) => [status, args])).toEqual(wrong.map((args) => [2, args]));
    expect(overlite('lst')).toMatchObject({ status: 2, stderr: expect.stringContaining('Did you mean') });
    expect(rows()).toEqual(before);
  });

  test('an error is one line, an object with --json, and has a stack with --debug', ({ overlite }) => {
    expect(overlite('info', 'nowhere').stderr).toBe('overlite: NOT_FOUND: there is no snapshot "nowhere"\n');
    expect(JSON.parse(overlite('info', 'nowhere', '--json').stderr)).toEqual({
      error: { code: 'NOT_FOUND', message: 'there is no snapshot "nowhere"', hint: null },
    });
    expect(overlite('info', 'nowhere', '--debug').stderr).toMatch(/\n {4}at /);
  });

  test('an error of the operating system has a code', ({ place, bash, overlite }) => {
    const { stderr } = bash('mkdir gone; cd gone; rmdir ../gone; overlite list --root store --json');
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'FAILED_PRECONDITION' } });
    expect(overlite('backup', join(place, 'x'.repeat(250))).stderr).toMatch(/^overlite: INVALID_ARGUMENT: /);
  });

  test('an argument that is not UTF-8 is refused, and U+FFFD is a character like any other', ({
    bash,
    printed,
  }) => {
    expect(bash(`overlite prepare $'bad\\xff' app`)).toMatchObject({
      status: 1,
      stderr: 'overlite: INVALID_ARGUMENT: an argument is not UTF-8\n',
    });
    expect(printed('prepare', 'good\uFFFD', 'app')).toContain('is active');
  });

  /** Runs commands whose output, or errors, go to a pipe that nobody reads any more, and prints their statuses. */
  const unheard = (...commands: string[]): string => `
    exec 3>&1
    mkfifo closed
    { read -r < closed; ${commands.map((line) => `${line}; echo $? >&3`).join('; ')}; } |
      { exec <&-; echo > closed; }`;

  test('a command whose errors nobody reads ends with the right status', ({ place, bash }) => {
    const { stdout } = bash(
      unheard(
        `overlite check --root ${place}/nowhere 2>&1 > /dev/null`,
        'overlite check --nonsense 2>&1 > /dev/null',
        'overlite info 2>&1 > /dev/null',
        `overlite run --json base -- sh -c 'exit 3' 2>&1 > /dev/null`,
      ),
    );
    expect(stdout).toBe('8\n16\n2\n3\n');
  });

  test('a command whose output cannot be written fails with its own status', ({ bash }) => {
    expect(bash('overlite list > /dev/full')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('cannot write the output: ENOSPC'),
    });
    expect(bash('overlite check > /dev/full').status).toBe(8);
  });

  test('a command whose output nobody reads ends with status 141, and prints no error', ({ bash }) => {
    expect(bash(unheard('overlite list --json'))).toMatchObject({ stdout: '141\n', stderr: '' });
  });
});

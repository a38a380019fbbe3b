import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, closeSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/mount.ts';
import { queryShell } from '../support/shell.ts';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const needs = isRoot ? '' : ' (needs root)';

const example = useExample();

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function overlite(...args: string[]): Ended {
  const env = { ...process.env, OVERLITE_ROOT: example.root };
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env });
  return { status, stdout, stderr };
}

/** What a command prints that succeeds. */
function printed(...args: string[]): string {
  const { status, stdout, stderr } = overlite(...args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return stdout;
}

const json = (command: string, ...args: string[]): unknown => JSON.parse(printed(command, '--json', ...args));

/** Runs a command in a terminal, and gives what is seen there. */
function inTerminal(command: string, env: Record<string, string> = {}): string {
  const { NO_COLOR: _1, FORCE_COLOR: _2, CI: _3, ...rest } = process.env;
  const { stdout } = spawnSync('script', ['-qec', `${process.execPath} ${main} ${command}`, '/dev/null'], {
    encoding: 'utf8',
    env: { ...rest, TERM: 'xterm', OVERLITE_ROOT: example.root, ...env },
  });
  return stdout.replaceAll('\r\n', '\n');
}

const rows = (): unknown =>
  queryShell(join(example.root, 'metadata.db'), 'select id, name, kind, parent_id from snapshot order by id');

describe.skipIf(!isRoot)(`the commands on a store${needs}`, () => {
  test('make, capture and take away snapshots', () => {
    expect(printed('prepare', 'fork', 'app', '--label', 'a=b', '--label', 'c=d=e')).toBe(
      'fork is active, on app\n',
    );
    expect(json('info', 'fork')).toMatchObject({ labels: { a: 'b', c: 'd=e' }, chain: ['app', 'base'] });
    expect(printed('checkpoint', 'fork-1', 'fork')).toMatch(/^fork-1 is committed: 1 inodes, /);
    expect(json('view', 'look', 'fork-1')).toMatchObject({
      key: 'look',
      kind: 'view',
      parent: 'fork-1',
      mounts: [{ type: 'overlay', source: 'overlay' }],
    });
    expect(json('commit', 'fork-2', 'fork', '--seal', 'content', '--in-use', 'refuse')).toMatchObject({
      name: 'fork-2',
      kind: 'committed',
      usage: { inodes: 1 },
      seal: expect.stringMatching(/^metadata1:\S+ content1:/),
    });
    expect(printed('remove', 'look')).toBe('look is removed\n');
    expect(json('delete', 'fork-2', 'fork-1')).toEqual([
      { name: 'fork-2', deferred: null },
      { name: 'fork-1', deferred: null },
    ]);
    expect(printed('cleanup')).toMatch(/^\d removed, 0 still in use\n$/);
  });

  test('take several away together or not at all', () => {
    const before = rows();
    const { status, stderr } = overlite('remove', 'work', 'scratch', 'nowhere');
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'overlite: NOT_FOUND: there is no snapshot "nowhere"\n',
    });
    expect(overlite('delete', 'app').stderr).toMatch(/FAILED_PRECONDITION: "app" has children/);
    expect(rows()).toEqual(before);
  });

  test('mount and unmount, and say how to', () => {
    const target = join(example.parent, 'a target');
    mkdirSync(target);
    expect(printed('mounts', 'work', target)).toMatch(/^mount -t overlay overlay '.*a target' -o workdir=/);
    expect(printed('mount', 'work', target)).toBe(`work is mounted on "${target}"\n`);
    try {
      writeFileSync(join(target, 'written'), '');
      expect(overlite('remove', 'work').stdout).toContain('its directory stays until a cleanup: ');
      expect(json('cleanup')).toMatchObject({ removed: 0, deferred: [{ path: example.at('snapshots', 3) }] });
    } finally {
      expect(json('unmount', target)).toEqual({ target });
    }
    expect(printed('cleanup')).toBe('1 removed, 0 still in use\n');
    expect(overlite('unmount', target)).toMatchObject({ status: 1 });
  });

  test('list, draw and add up', () => {
    expect(printed('list', '--kind', 'committed').replaceAll(/ *\d+s$/gm, '  now')).toBe(
      [
        'NAME  KIND       PARENT      SIZE  INODES  AGE',
        'base  committed  -       32.0 KiB       4  now',
        'app   committed  base     8.0 KiB       2  now',
        '',
      ].join('\n'),
    );
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
    const names = (value: unknown): unknown => (value as { name: string }[]).map(({ name }) => name);
    expect(names(json('list', 'labels.of==work', 'name==base'))).toEqual(['base', 'work']);
    expect(json('list', 'name==nothing')).toEqual([]);
    expect(overlite('list', 'name==').stderr).toContain('INVALID_ARGUMENT');
    expect(json('usage', 'base', 'work')).toMatchObject([
      { name: 'base', own: { inodes: 4 }, frees: { size: 0 }, freesWithDescendants: { inodes: 8 } },
      { name: 'work', own: { inodes: 2 }, chain: { inodes: 8 }, frees: { inodes: 2 } },
    ]);
    expect(printed('usage', 'app')).toMatch(/^NAME .* FREES {2}WITH DESCENDANTS\napp .* 0 B +16\.0 KiB\n$/);
    expect(printed('info', 'app')).toMatch(/^stands on {2}base\nchildren +work reader$/m);
  });

  test('change labels', () => {
    expect(printed('label', 'base', 'new=1', 'of-')).toBe('new=1\n');
    expect(printed('label', 'base')).toBe('new=1\n');
    expect(json('label', 'base', 'only=a b', '--replace')).toEqual({ only: 'a b' });
    expect(printed('label', 'base')).toBe('only="a b"\n');
    expect(overlite('label', 'base', 'nonsense')).toMatchObject({
      status: 1,
      stderr: 'overlite: INVALID_ARGUMENT: "nonsense" is neither key=value nor key-\n',
    });
    expect(json('label', 'base')).toEqual({ only: 'a b' });
  });

  test('show names as they are, and hide what they could do to a terminal', () => {
    const odd = '-\u001B[31m\nname';
    printed('prepare', '--', odd, 'app');
    expect(printed('list', 'kind==active')).toContain(String.raw`"-\u001b[31m\nname"`);
    expect(json('info', '--', odd)).toMatchObject({ name: odd });
    expect(printed('remove', '--', odd)).toBe(`${JSON.stringify(odd)} is removed\n`);
  });

  test('use colours and bars on a terminal alone, as far as they may', () => {
    expect(inTerminal('list')).toContain('\u001B[32mactive\u001B[39m');
    expect(inTerminal('list', { NO_COLOR: '1' })).not.toContain('\u001B[');
    expect(inTerminal('list', { TERM: 'dumb' })).not.toContain('\u001B[');
    expect(inTerminal('check')).toMatch(/database .*─{5}/);
    expect(inTerminal('checkpoint now work')).toMatch(/now is committed: 2 inodes, 8\.0 KiB\n$/);
  });
});

describe.skipIf(!isRoot)(`what goes wrong${needs}`, () => {
  test('wrong usage is status 2, with a suggestion, and changes nothing', () => {
    const before = rows();
    for (const args of [
      ['lst'],
      ['list', '--jsn'],
      ['prepare'],
      ['prepare', '-x', 'app'],
      ['prepare', 'a', 'b', 'c'],
      ['prepare', 'a', '--label', 'nonsense'],
      ['commit', 'n', 'k', '--seal', 'wax'],
      ['prepare', 'a', '--busy-timeout', 'soon'],
      [],
    ]) {
      expect({ args, status: overlite(...args).status }).toEqual({ args, status: 2 });
    }
    expect(overlite('lst').stderr).toContain('Did you mean');
    expect(rows()).toEqual(before);
  });

  test('a root that is no store is refused by all that do not make one', () => {
    const root = join(example.parent, 'nowhere');
    for (const args of [
      ['list'],
      ['commit', 'n', 'k'],
      ['remove', 'k'],
      ['cleanup'],
      ['mount', 'k', '/mnt'],
    ]) {
      const { status, stderr } = overlite(...args, '--root', root);
      expect({ args, status }).toEqual({ args, status: 1 });
      expect(stderr).toMatch(
        /^overlite: FAILED_PRECONDITION: ".*nowhere" is not the root of a store\n {2}hint: /,
      );
    }
    expect(existsSync(root)).toBe(false);
    expect(printed('prepare', 'first', '--root', root)).toBe('first is active\n');
  });

  test('an error is a line, an object with --json, and more with --debug', () => {
    expect(overlite('info', 'nowhere').stderr).toBe('overlite: NOT_FOUND: there is no snapshot "nowhere"\n');
    expect(JSON.parse(overlite('info', 'nowhere', '--json').stderr)).toEqual({
      error: { code: 'NOT_FOUND', message: 'there is no snapshot "nowhere"', hint: null },
    });
    expect(overlite('info', 'nowhere', '--debug').stderr).toMatch(/\n {4}at /);
  });

  test('output that cannot be written is said, a closed pipe is not', () => {
    const full = openSync('/dev/full', 'w');
    const env = { ...process.env, OVERLITE_ROOT: example.root };
    const { status, stderr } = spawnSync(process.execPath, [main, 'list'], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
      env,
    });
    closeSync(full);
    expect(status).toBe(1);
    expect(stderr).toContain('cannot write the output: ENOSPC');
    const script = `"$1" "$2" list --json | true; echo "\${PIPESTATUS[0]}"`;
    const piped = spawnSync('bash', ['-c', script, '-', process.execPath, main], { encoding: 'utf8', env });
    expect(piped).toMatchObject({ stdout: '141\n', stderr: '' });
  });

  test.each([
    'prepare view mounts commit checkpoint remove delete list info tree usage label mount unmount cleanup check backup restore serve'.split(
      ' ',
    ),
  ])('%s and all others have help with examples and exit status', (...commands) => {
    const all = printed('--help');
    for (const command of commands) {
      const help = printed(command, '--help');
      expect(help).toMatch(
        new RegExp(`^ {2}\\$ overlite ${command}\\b.*\n {2}\\$ overlite ${command}\\b`, 'm'),
      );
      expect(help).toMatch(/^Exit status: /m);
      expect(all).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'));
    }
  });
});

import { execFile, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { commandLine, main } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/needs.ts';
import { queryShell } from '../support/shell.ts';

const needs = isRoot ? '' : ' (needs root)';

const example = useExample();
const { overlite, printed, json, inTerminal } = commandLine(example);

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
    expect(printed('info', 'app')).toMatch(/^chain +base\nchildren +work reader$/m);
  });

  test('change labels', () => {
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

  test('add up and draw what was committed onto a younger base', () => {
    printed('prepare', 'old');
    printed('prepare', 'new');
    printed('commit', 'base-2', 'new');
    printed('commit', 'child', 'old', '--parent', 'base-2');
    expect(json('usage', 'child')).toMatchObject([{ own: { inodes: 1 }, chain: { inodes: 2 } }]);
    expect(json('usage', 'base-2')).toMatchObject([{ freesWithDescendants: { inodes: 2 } }]);
    expect(json('graph', 'base-2')).toMatchObject({
      nodes: [{ name: 'base-2' }, { name: 'child' }],
      edges: [{ from: expect.any(Number) }],
    });
    expect(printed('graph').match(/->/g)).toHaveLength(4);
  });

  test('tell what is known of a snapshot whose layer is lost', () => {
    rmSync(example.at('snapshots', example.ids.work), { recursive: true });
    expect(json('usage', 'work')).toMatchObject([{ own: null, chain: null, frees: null }]);
    expect(json('usage', 'base')).toMatchObject([{ own: { inodes: 4 }, freesWithDescendants: null }]);
    expect(printed('usage')).toMatch(/^work +active +- +- +- +- +-$/m);
    expect(json('info', 'work')).toMatchObject({ usage: null });
    expect(printed('info', 'work')).toMatch(/^usage +-$/m);
  });

  test('look at a store that others change meanwhile', async () => {
    const driver = await OverlayDriver.open(example.root, { asyncRemove: true, backups: false });
    const stop = new AbortController();
    const change = async (): Promise<void> => {
      for (let n = 0; !stop.signal.aborted; n += 1) {
        await driver.prepare(`k${n}`, 'base');
        await driver.commit(`c${n}`, `k${n}`);
        await driver.delete(`c${n}`);
      }
    };
    const changing = Promise.all([change(), change()].map((work) => work.catch((error: unknown) => error)));
    const run = promisify(execFile);
    const env = { ...process.env, OVERLITE_ROOT: example.root };
    for (const command of ['list', 'tree', 'usage', 'graph', 'list', 'usage']) {
      expect((await run(process.execPath, [main, command], { env })).stderr).toBe('');
    }
    stop.abort();
    await changing;
    await driver.close();
  });

  test('show names as they are, and hide what they could do to a terminal', () => {
    for (const hidden of ['c1\u009B31m', 'right to left\u202E', 'line\u2028']) {
      printed('prepare', hidden, 'app');
      expect(printed('list', 'kind==active')).not.toContain(hidden);
      expect(overlite('prepare', hidden).stderr).not.toContain(hidden);
      expect(JSON.parse(printed('remove', hidden).replace(' is removed\n', ''))).toBe(hidden);
    }
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

  test('a store is made neither among other things nor for a parent that cannot be there', () => {
    const root = join(example.parent, 'other');
    mkdirSync(root, { mode: 0o700 });
    expect(overlite('prepare', 'k', 'base', '--root', root).status).toBe(1);
    writeFileSync(join(root, 'file'), '');
    expect(overlite('prepare', 'k', '--root', root)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^overlite: FAILED_PRECONDITION: ".*other" is not empty/),
    });
    expect(readdirSync(root)).toEqual(['file']);
    // What a crash leaves of a store that was being made is no reason.
    rmSync(join(root, 'file'));
    mkdirSync(join(root, 'snapshots'));
    mkdirSync(join(root, 'lost+found'));
    expect(printed('prepare', 'k', '--root', root)).toBe('k is active\n');
    rmSync(join(root, 'metadata.db'));
    expect(overlite('prepare', 'k', '--root', root).status).toBe(1);
  });

  test('the status is right though nobody hears what is said', () => {
    const script = `"$@" 2>&1 >/dev/null | true; echo "\${PIPESTATUS[0]}"`;
    const status = (...args: string[]): string =>
      spawnSync('bash', ['-c', `sleep 0.2; ${script}`, '-', process.execPath, main, ...args], {
        encoding: 'utf8',
      }).stdout.trim();
    expect(status('check', '--root', join(example.parent, 'nowhere'))).toBe('8');
    expect(status('check', '--nonsense')).toBe('16');
    expect(status('info')).toBe('2');
    expect(status('run', '--root', example.root, '--json', 'base', '--', 'sh', '-c', 'exit 3')).toBe('3');
    const full = spawnSync('bash', ['-c', '"$@" > /dev/full', '-', process.execPath, main, 'check'], {
      env: { ...process.env, OVERLITE_ROOT: example.root },
    });
    expect(full.status).toBe(8);
  });

  test('arguments that are not UTF-8 are refused, and are not some other name', () => {
    const script = `exec "$1" "$2" prepare $'bad\\xff' app`;
    const { status, stderr } = spawnSync('bash', ['-c', script, '-', process.execPath, main], {
      encoding: 'utf8',
      env: { ...process.env, OVERLITE_ROOT: example.root },
    });
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'overlite: INVALID_ARGUMENT: an argument is not UTF-8\n',
    });
    expect(printed('prepare', 'good\uFFFD', 'app')).toContain('is active');
  });

  test('errors of the operating system have a code too', () => {
    const script = `mkdir gone; cd gone; rmdir ../gone; "$1" "$2" list --root store --json`;
    const { stderr } = spawnSync('bash', ['-c', script, '-', process.execPath, main], {
      encoding: 'utf8',
      cwd: example.parent,
    });
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'FAILED_PRECONDITION' } });
    const name = 'x'.repeat(250);
    expect(overlite('backup', join(example.parent, name)).stderr).toMatch(/^overlite: INVALID_ARGUMENT: /);
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
});

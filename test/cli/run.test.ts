import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { commandLine, main } from '../support/cli.ts';
import { useExample } from '../support/damage.ts';
import { isRoot } from '../support/needs.ts';
import { queryShell } from '../support/shell.ts';
import { assertWhole } from '../support/store.ts';
import { missing, sh } from '../support/tree.ts';

const lacking = isRoot ? missing('unshare', 'setpriv', 'python3') : ['root'];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

const example = useExample();

/** Where commands have their trees mounted, seen by nobody else. */
const scratch = (): string => join(example.parent, 'tmp');
const env = (): Record<string, string> => ({ OVERLITE_ROOT: example.root, TMPDIR: scratch() });
const { overlite, printed, json } = commandLine(example, env);

/** Runs a shell script in the tree of a snapshot. */
const run = (keyOrName: string, script: string, ...options: string[]): ReturnType<typeof overlite> =>
  overlite('run', keyOrName, ...options, '--', 'sh', '-c', script);

/** What the store holds. */
const rows = (): unknown =>
  queryShell(join(example.root, 'metadata.db'), 'select name, kind from snapshot order by id');

const layer = (id: number): string => example.at('snapshots', id, 'fs');

describe.skipIf(lacking.length > 0)(`a command in the tree of a snapshot${needs}`, () => {
  beforeEach(() => mkdirSync(scratch(), { mode: 0o755 }));
  afterEach(() => {
    assertWhole(example.root);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(example.root);
    expect(readdirSync(scratch())).toEqual([]);
  });

  test('works in an active one, which keeps what it does', () => {
    const script =
      'pwd; echo "$PWD"; cat app draft; echo more >> draft; rm app; echo "$OVERLITE_KEY" >&2; exit 7';
    const { status, stdout, stderr } = run('work', script);
    const [directory = '', pwd, ...files] = stdout.trimEnd().split('\n');
    expect({ status, files, stderr }).toEqual({ status: 7, files: ['app', 'draft'], stderr: 'work\n' });
    expect(pwd).toBe(directory);
    expect(directory).toMatch(/\/overlite-run-\w+$/);
    expect(readFileSync(join(layer(example.ids.work), 'draft'), 'utf8')).toBe('draft\nmore\n');
    expect(printed('diff', 'work')).toBe('D /app\nA /draft\n');
  });

  test('only reads a view, and throws away what it did in a committed one', () => {
    const before = rows();
    expect(run('reader', 'cat app; touch new 2> /dev/null || echo refused').stdout).toBe('app\nrefused\n');
    expect(run('base', 'echo new > new; cat new large | wc -c').stdout).toBe('20004\n');
    expect(rows()).toEqual(before);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
  });

  test('becomes a snapshot where that is asked for and it succeeds', () => {
    expect(run('base', 'echo one > one', '--commit', 'base-1', '--label', 'of=run')).toEqual({
      status: 0,
      stdout: '',
      stderr: expect.stringMatching(/^overlite: base-1 is committed: 2 inodes, /),
    });
    expect(json('info', 'base-1')).toMatchObject({ parent: 'base', labels: { of: 'run' }, inUse: false });
    expect(run('base', 'exit 3', '--commit', 'base-2')).toEqual({
      status: 3,
      stdout: '',
      stderr: 'overlite: nothing is committed: the command ended with status 3\n',
    });
    expect(run('work', 'rm draft', '--commit', 'work-1').status).toBe(0);
    const names = (rows() as { name: string }[]).map(({ name }) => name);
    expect(names).toEqual(['base', 'app', 'work-1', 'scratch', 'reader', 'empty', 'base-1']);
  });

  // A base is a bind mount, which overlayfs knows nothing of.
  test.each(['base', 'new-base'])('in %s loses what it leaves running: a copy is committed', async (on) => {
    if (on === 'new-base') printed('prepare', on);
    const left = 'while :; do sleep 0.05; pwd -P > where; done';
    const script = `echo kept > file; exec > /dev/null 2>&1; setsid sh -c '${left}' & echo $! > pid`;
    const { status } = run(on, script, '--commit', 'base-1');
    expect(status).toBe(0);
    expect(json('info', 'base-1')).toMatchObject({ inUse: false });
    const { id } = json('info', 'base-1') as { id: number };
    const held = json('cleanup') as { deferred: { path: string }[] };
    const path = held.deferred[0]?.path ?? '';
    const where = (): string => {
      const file = join(path, 'fs', 'where');
      return existsSync(file) ? readFileSync(file, 'utf8') : '';
    };
    while (where() === '') await sleep(20);
    // Its directory stays where it is.
    expect(where()).toMatch(/\/overlite-run-\w+\n$/);
    process.kill(Number(readFileSync(join(layer(id), 'pid'), 'utf8')));
    // A namespace goes a while after its last process.
    while ((json('cleanup') as { deferred: unknown[] }).deferred.length > 0) await sleep(20);
    expect(printed('check')).toContain(': clean');
    for (const name of readdirSync(scratch())) rmdirSync(join(scratch(), name));
  });

  test('can be run in each way to mount, also in those that everybody sees for a moment', () => {
    for (const by of ['descriptors', 'strings', 'mount(2)', 'mount(8)']) {
      expect(run('work', 'cat app; grep -c "$PWD" /proc/self/mountinfo', '--by', by)).toEqual({
        status: 0,
        stdout: 'app\n1\n',
        stderr: '',
      });
    }
    expect(overlite('run', 'work', '--by', 'hand', 'true').status).toBe(125);
  });

  test('leaves nothing mounted when it is killed, and a workspace that can be removed', async () => {
    const child = spawn(process.execPath, [main, 'run', 'base', '--', 'sh', '-c', 'echo $$; exec sleep 60'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env() },
    });
    const [pid] = (await once(child.stdout, 'data')) as [Buffer];
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(example.root);
    process.kill(Number(pid.toString()));
    const [left] = json('list', 'name~=^run-[0-9a-f]{12}$') as { name: string }[];
    expect(printed('remove', '--', left?.name ?? '')).toMatch(/^run-[0-9a-f]{12} is removed\n/);
    while ((json('cleanup') as { deferred: unknown[] }).deferred.length > 0) await sleep(20);
    for (const name of readdirSync(scratch())) rmdirSync(join(scratch(), name));
  });

  test('keeps its work if only the commit fails', () => {
    const script = `echo hours > hours; ${process.execPath} ${main} prepare out base > /dev/null`;
    const { status, stderr } = run('base', script, '--commit', 'out');
    expect(status).toBe(125);
    const [, key = ''] = /kept in "(run-\w+)"/.exec(stderr) ?? [];
    expect(stderr).toMatch(/^overlite: ALREADY_EXISTS: /);
    expect(printed('commit', 'saved', key)).toMatch(/^saved is committed: 2 inodes/);
    expect(printed('diff', 'saved')).toBe('A /hours\n');
  });

  test('is in a mount namespace of its own, with an environment that leads back to the store', () => {
    const own = sh('readlink /proc/self/ns/mnt', '/').trim();
    const { stdout } = run('work', `readlink /proc/self/ns/mnt; mount -t tmpfs none . && echo mounted`);
    const [inside, mounted] = stdout.trimEnd().split('\n');
    expect(inside).not.toBe(own);
    expect(mounted).toBe('mounted');
    const nested = run(
      'work',
      `"$0" "$1" info "$OVERLITE_KEY" --json`.replace('"$0" "$1"', `${process.execPath} ${main}`),
    );
    expect(JSON.parse(nested.stdout)).toMatchObject({ name: 'work' });
  });

  test('may have the tree as its root, which leads nowhere else', () => {
    sh(
      `for file in /bin/sh /bin/ls /usr/bin/env; do cp --parents -L $file $(ldd $file | grep -o '/[^ ]*') .; done
       mkdir dev sys; ln -s /etc proc`,
      layer(example.ids.work),
    );
    const { status, stdout, stderr } = run(
      'work',
      'echo "$PWD"; ls /; ls -d /dev/null /sys/kernel',
      '--chroot',
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.split('\n')).toEqual(
      expect.arrayContaining(['/', 'app', 'draft', 'etc', '/dev/null', '/sys/kernel']),
    );
    expect(stdout).not.toContain('root');
    // What is no directory in the tree has nothing mounted on it, and so nothing on what it leads to.
    expect(run('work', 'ls /proc/hosts', '--chroot').stdout).toBe('/proc/hosts\n');
  });

  test('may have a snapshot whose name begins with a dash', () => {
    printed('prepare', '--', '-odd', 'base');
    for (const more of [[], ['--']])
      expect(printed('run', '--', '-odd', ...more, 'ls', '-l')).toContain('large');
  });

  test('tells its status with --json, on standard error', () => {
    const { status, stdout, stderr } = run('base', 'echo out; kill -TERM $$', '--json');
    expect({ status, stdout }).toEqual({ status: 143, stdout: 'out\n' });
    expect(JSON.parse(stderr)).toEqual({
      key: expect.stringMatching(/^run-[0-9a-f]{12}$/),
      status: 143,
      signal: 'SIGTERM',
      committed: null,
      removed: true,
      deferred: null,
    });
  });

  test('that cannot be run has the status that shells give', () => {
    const before = rows();
    writeFileSync(join(layer(example.ids.work), 'plain'), '');
    expect(overlite('run', 'base', 'no-such-command')).toEqual({
      status: 127,
      stdout: '',
      stderr: 'overlite: no-such-command cannot be run: ENOENT\n',
    });
    expect(overlite('run', 'work', './plain')).toMatchObject({ status: 126 });
    expect(overlite('run', 'work', './plain/file')).toMatchObject({
      status: 126,
      stderr: 'overlite: ./plain/file cannot be run: ENOTDIR\n',
    });
    expect(rows()).toEqual(before);
  });

  test('is not run where something is wrong, and nothing has changed', () => {
    const before = rows();
    const touch = join(example.parent, 'was-run');
    for (const [args, message] of [
      [['nowhere'], 'NOT_FOUND: there is no snapshot "nowhere"'],
      [['base', '--commit', 'app'], 'ALREADY_EXISTS: "app" is taken already'],
      [['reader', '--commit', 'new'], 'FAILED_PRECONDITION: "reader" is a view and can never be committed'],
      [['base', '--commit', ''], 'INVALID_ARGUMENT: the key or name is empty'],
      [['base', '--', ''], 'INVALID_ARGUMENT: the command is empty'],
      [['base', '--label', 'a=b'], 'INVALID_ARGUMENT: labels are only for a snapshot that is committed'],
    ] as const) {
      const command = args.some((arg) => arg === '--') ? [] : ['--', 'touch', touch];
      const { status, stderr } = overlite('run', ...args, ...command);
      expect({ status, line: stderr.split('\n')[0] }).toEqual({ status: 125, line: `overlite: ${message}` });
    }
    expect(overlite('run').status).toBe(125);
    expect(overlite('run', 'base').status).toBe(125);
    expect(overlite('run', 'base', '--nonsense', 'true').status).toBe(125);
    expect(existsSync(touch)).toBe(false);
    expect(rows()).toEqual(before);
  });

  test('leaves no workspace behind where there is no directory to mount it on', () => {
    const before = rows();
    const { status, stderr } = spawnSync(process.execPath, [main, 'run', 'base', 'true'], {
      encoding: 'utf8',
      env: { ...process.env, ...env(), TMPDIR: join(example.parent, 'nowhere') },
    });
    expect({ status, stderr }).toEqual({
      status: 125,
      stderr: expect.stringMatching(/^overlite: FAILED_PRECONDITION: .*ENOENT/),
    });
    expect(rows()).toEqual(before);
  });

  test('gets the signals: Ctrl-C does not end what waits for it', async () => {
    const script = `trap 'echo interrupted; exit 5' INT; trap 'echo terminated; exit 6' TERM; echo ready; while :; do sleep 0.05; done`;
    for (const [signal, said, expected] of [
      ['SIGINT', 'interrupted', 5],
      ['SIGTERM', 'terminated', 6],
    ] as const) {
      // As in a terminal, SIGINT goes to all of the group; SIGTERM to the one that was meant.
      const child = spawn(process.execPath, [main, 'run', 'base', '--', 'sh', '-c', script], {
        detached: true,
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, ...env() },
      });
      let output = '';
      child.stdout.on('data', (data: Buffer) => (output += data.toString()));
      await once(child.stdout, 'data');
      process.kill(signal === 'SIGINT' ? -(child.pid ?? 0) : (child.pid ?? 0), signal);
      const [status] = (await once(child, 'close')) as [number];
      expect({ status, output }).toEqual({ status: expected, output: `ready\n${said}\n` });
    }
  });

  test('needs the right to mount, and says so', () => {
    sh(`chmod 755 ${example.parent}; chown -R 1234:1234 ${example.root}`, '/');
    const { status, stderr } = spawnSync(
      'setpriv',
      ['--reuid=1234', '--regid=1234', '--clear-groups', process.execPath, main, 'run', 'base', 'true'],
      { encoding: 'utf8', env: { ...process.env, ...env() } },
    );
    expect(status).toBe(125);
    expect(stderr).toMatch(/^overlite: PERMISSION_DENIED: /);
    sh(`chown -R 0:0 ${example.root}`, '/');
  });

  test('works without root in a user namespace', () => {
    const made = join(example.parent, 'rootless');
    sh(`mkdir -m 700 ${made}`, '/');
    const script = `
      export OVERLITE_ROOT=${made}/store
      o() { ${process.execPath} ${main} "$@"; }
      o prepare new-base; echo base > $OVERLITE_ROOT/snapshots/1/fs/file; o commit base new-base
      o run base --commit base-1 -- sh -c 'cat file; rm file; echo new > other'
      o diff base-1`;
    const out = execFileSync('unshare', ['-Urm', 'bash', '-euc', script], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
    expect(out).toContain('base\nD /file\nA /other\n');
  });
});

describe.skipIf(lacking.length > 0)(`a shell in the tree of a snapshot${needs}`, () => {
  beforeEach(() => mkdirSync(scratch(), { mode: 0o755 }));

  test('is the own one of whoever asks, or that of the tree', () => {
    const shell = (input: string, variables: Record<string, string>, ...args: string[]): string =>
      execFileSync(process.execPath, [main, 'shell', ...args], {
        input,
        encoding: 'utf8',
        env: { ...process.env, ...env(), ...variables },
        stdio: ['pipe', 'pipe', 'pipe'],
      });
    expect(shell('echo "$BASH_VERSION"; ls\n', { SHELL: '/bin/bash' }, 'work')).toMatch(
      /^5.*\napp\ndraft\netc\nlarge\n$/,
    );
    expect(shell('echo "$0"\n', { SHELL: '' }, 'work')).toBe('/bin/sh\n');
    expect(shell('touch made\n', {}, 'base', '--commit', 'base-1')).toBe('');
    expect(printed('diff', 'base-1')).toBe('A /made\n');
  });
});

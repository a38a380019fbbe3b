import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { type CommandLine, test as base } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', 'unshare', 'setpriv', 'python3');

const test = base.extend<{
  /** Where commands have their trees mounted, seen by nobody else. */
  scratch: string;
  /** Runs a shell script in the tree of a snapshot. */
  run: (keyOrName: string, script: string, ...options: string[]) => ReturnType<CommandLine['overlite']>;
  /** The path of the layer of an id. */
  layer: (id: number) => string;
  /** Waits until no removal is left to do. A namespace goes a while after its last process. */
  cleanedUp: () => Promise<unknown>;
}>({
  scratch: async ({ place }, use) => {
    const scratch = join(place, 'tmp');
    mkdirSync(scratch, { mode: 0o755 });
    await use(scratch);
  },
  run: async ({ overlite }, use) =>
    use((keyOrName, script, ...options) => overlite('run', keyOrName, ...options, '--', 'sh', '-c', script)),
  layer: async ({ example }, use) => use((id) => example.at('snapshots', id, 'fs')),
  cleanedUp: async ({ json }, use) =>
    use(() =>
      waitFor('the end of what uses a removed directory', () => {
        return (json('cleanup') as { deferred: unknown[] }).deferred.length === 0;
      }),
    ),
});
test.override('variables', ({ scratch }) => ({ TMPDIR: scratch }));

describe.skipIf(lacking)(`overlite run${lacking}`, () => {
  test.afterEach(({ example, scratch }) => {
    assertWhole(example.root);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(example.root);
    expect(readdirSync(scratch)).toEqual([]);
  });

  test('`run` works in an active snapshot, which keeps what the command does', ({
    example,
    layer,
    run,
    printed,
  }) => {
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

  test('`run` cannot write to a view, and discards what it writes to a committed snapshot', ({
    example,
    run,
    rows,
  }) => {
    const before = rows();
    expect(run('reader', 'cat app; touch new 2> /dev/null || echo refused').stdout).toBe('app\nrefused\n');
    expect(run('base', 'echo new > new; cat new large | wc -c').stdout).toBe('20004\n');
    expect(rows()).toEqual(before);
    expect(readdirSync(example.at('snapshots'))).toHaveLength(5);
  });

  test('`run --commit` makes a snapshot if the command succeeds', ({ run, json, rows }) => {
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
  test.for(['base', 'new-base'])(
    '`run --commit` on %s commits a copy if the command leaves a process running',
    async (on, { scratch, layer, run, printed, json, cleanedUp }) => {
      if (on === 'new-base') printed('prepare', on);
      const left = 'while :; do sleep 0.05; pwd -P > where; done';
      const script = `echo kept > file; exec > /dev/null 2>&1; setsid sh -c '${left}' & echo $! > pid`;
      const { status } = run(on, script, '--commit', 'base-1');
      expect(status).toBe(0);
      const { id, inUse } = json('info', 'base-1') as { id: number; inUse: boolean };
      expect(inUse).toBe(false);
      const held = json('cleanup') as { deferred: { path: string }[] };
      const where = join(held.deferred[0]?.path ?? '', 'fs', 'where');
      // Its directory stays where it is.
      expect(
        await waitFor('what the process writes', () => existsSync(where) && readFileSync(where, 'utf8')),
      ).toMatch(/\/overlite-run-\w+\n$/);
      process.kill(Number(readFileSync(join(layer(id), 'pid'), 'utf8')));
      await cleanedUp();
      expect(printed('check')).toContain(': clean');
      for (const name of readdirSync(scratch)) rmdirSync(join(scratch, name));
    },
  );

  test('`run --by` runs a command with each mount method', ({ run, overlite }) => {
    for (const by of ['descriptors', 'strings', 'mount(2)', 'mount(8)']) {
      expect(run('work', 'cat app; grep -c "$PWD" /proc/self/mountinfo', '--by', by)).toEqual({
        status: 0,
        stdout: 'app\n1\n',
        stderr: '',
      });
    }
    expect(overlite('run', 'work', '--by', 'hand', 'true').status).toBe(125);
  });

  test('`run` that is killed leaves nothing mounted, and a workspace that can be removed', async ({
    example,
    scratch,
    start,
    printed,
    json,
    cleanedUp,
  }) => {
    const running = start(['run', 'base', '--', 'sh', '-c', 'echo $$; exec sleep 1000']);
    const pid = Number(await waitFor('the id of the process', running.stdout));
    running.process.kill('SIGKILL');
    await running.exited;
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(example.root);
    process.kill(pid);
    const [left] = json('list', 'name~=^run-[0-9a-f]{12}$') as { name: string }[];
    expect(printed('remove', '--', left?.name ?? '')).toMatch(/^run-[0-9a-f]{12} is removed\n/);
    await cleanedUp();
    for (const name of readdirSync(scratch)) rmdirSync(join(scratch, name));
  });

  test('`run --commit` keeps the work if only the commit fails', ({ run, printed }) => {
    const script = `echo hours > hours; overlite prepare out base > /dev/null`;
    const { status, stderr } = run('base', script, '--commit', 'out');
    expect(status).toBe(125);
    const [, key = ''] = /kept in "(run-\w+)"/.exec(stderr) ?? [];
    expect(stderr).toMatch(/^overlite: ALREADY_EXISTS: /);
    expect(printed('commit', 'saved', key)).toMatch(/^saved is committed: 2 inodes/);
    expect(printed('diff', 'saved')).toBe('A /hours\n');
  });

  test('`run` gives the command its own mount namespace, and the store in OVERLITE_ROOT', ({ run }) => {
    const own = sh('readlink /proc/self/ns/mnt', '/').trim();
    const { stdout } = run('work', `readlink /proc/self/ns/mnt; mount -t tmpfs none . && echo mounted`);
    const [inside, mounted] = stdout.trimEnd().split('\n');
    expect(inside).not.toBe(own);
    expect(mounted).toBe('mounted');
    const nested = run('work', `overlite info "$OVERLITE_KEY" --json`);
    expect(JSON.parse(nested.stdout)).toMatchObject({ name: 'work' });
  });

  test('`run --chroot` makes the tree the root, and mounts nothing where symbolic links in it lead', ({
    example,
    layer,
    run,
  }) => {
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

  test('`run` takes a snapshot whose name begins with a dash, behind --', ({ printed }) => {
    printed('prepare', '--', '-odd', 'base');
    for (const more of [[], ['--']])
      expect(printed('run', '--', '-odd', ...more, 'ls', '-l')).toContain('large');
  });

  test('`run --json` prints how the command ended to standard error', ({ run }) => {
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

  test('`run` ends with 126 or 127, as shells do, if the command cannot be run', ({
    example,
    layer,
    overlite,
    rows,
  }) => {
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

  test('`run` ends with status 125 on wrong arguments, and runs and changes nothing', async ({
    place,
    together,
    rows,
  }) => {
    const before = rows();
    const touch = join(place, 'was-run');
    const refused = [
      [['nowhere'], 'NOT_FOUND: there is no snapshot "nowhere"'],
      [['base', '--commit', 'app'], 'ALREADY_EXISTS: "app" is taken already'],
      [['reader', '--commit', 'new'], 'FAILED_PRECONDITION: "reader" is a view and can never be committed'],
      [['base', '--commit', ''], 'INVALID_ARGUMENT: the key or name is empty'],
      [['base', '--', ''], 'INVALID_ARGUMENT: the command is empty'],
      [['base', '--label', 'a=b'], 'INVALID_ARGUMENT: labels are only for a snapshot that is committed'],
    ] as const;
    const ended = await together(
      ...refused.map(([args]) => {
        const command = args.some((arg) => arg === '--') ? [] : ['--', 'touch', touch];
        return ['run', ...args, ...command];
      }),
    );
    expect(ended.map(({ status, stderr }) => ({ status, line: stderr.split('\n')[0] }))).toEqual(
      refused.map(([, message]) => ({ status: 125, line: `overlite: ${message}` })),
    );
    expect(await together(['run'], ['run', 'base'], ['run', 'base', '--nonsense', 'true'])).toMatchObject([
      { status: 125 },
      { status: 125 },
      { status: 125 },
    ]);
    expect(existsSync(touch)).toBe(false);
    expect(rows()).toEqual(before);
  });

  test('`run` leaves no workspace behind where there is no directory to mount it on', ({
    place,
    bash,
    rows,
  }) => {
    const before = rows();
    const { status, stderr } = bash(`TMPDIR=${place}/nowhere overlite run base true`);
    expect({ status, stderr }).toEqual({
      status: 125,
      stderr: expect.stringMatching(/^overlite: FAILED_PRECONDITION: .*ENOENT/),
    });
    expect(rows()).toEqual(before);
  });

  test.for([
    ['SIGINT', 'interrupted', 5],
    ['SIGTERM', 'terminated', 6],
  ] as const)(
    '`run` leaves %s to the command, and ends when the command does',
    async ([signal, said, status], { start }) => {
      const script = `trap 'echo interrupted; exit 5' INT; trap 'echo terminated; exit 6' TERM; echo ready; while :; do sleep 0.05; done`;
      const running = start(['run', 'base', '--', 'sh', '-c', script], { group: true });
      await waitFor('the command to be ready', running.stdout);
      // As in a terminal, SIGINT goes to all of the group; SIGTERM to the one that was meant.
      process.kill(signal === 'SIGINT' ? -running.pid : running.pid, signal);
      expect(await running.ended()).toEqual({ status, stdout: `ready\n${said}\n`, stderr: '' });
    },
  );

  test('`run` fails with PERMISSION_DENIED for a user who may not mount', ({ example, asUser }) => {
    sh(`chown -R 1234:1234 ${example.root}`, '/');
    expect(asUser('run base true')).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/^overlite: PERMISSION_DENIED: /),
    });
    sh(`chown -R 0:0 ${example.root}`, '/');
  });

  test('`run` works without root in a user namespace', ({ place, bash }) => {
    const made = join(place, 'rootless');
    mkdirSync(made, { mode: 0o700 });
    writeFileSync(
      join(place, 'script'),
      `export OVERLITE_ROOT=${made}/store
       overlite prepare new-base
       echo base > $OVERLITE_ROOT/snapshots/1/fs/file
       overlite commit base new-base
       overlite run base --commit base-1 -- sh -c 'cat file; rm file; echo new > other'
       overlite diff base-1`,
    );
    const { status, stdout } = bash('unshare -Urm bash -eu script');
    expect(status).toBe(0);
    expect(stdout).toContain('base\nD /file\nA /other\n');
  });
});

describe.skipIf(lacking)(`overlite shell${lacking}`, () => {
  test('`shell` starts the shell of the user, or /bin/sh', ({ bash, printed }) => {
    const own = bash(`echo 'echo "$BASH_VERSION"; ls' | SHELL=/bin/bash overlite shell work`);
    expect(own.status).toBe(0);
    expect(own.stdout).toMatch(/^5.*\napp\ndraft\netc\nlarge\n$/);
    expect(bash(`echo 'echo "$0"' | SHELL= overlite shell work`)).toMatchObject({
      status: 0,
      stdout: '/bin/sh\n',
    });
    expect(bash(`echo 'touch made' | overlite shell base --commit base-1`)).toMatchObject({
      status: 0,
      stdout: '',
    });
    expect(printed('diff', 'base-1')).toBe('A /made\n');
  });
});

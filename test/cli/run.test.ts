import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { type CommandLine, test as base } from '../support/cli.ts';
import { methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', 'unshare', 'setpriv', 'python3');

/** Where commands have their trees mounted, each seen by its command alone. */
const TREE = '/run/overlite-run/tree';

const test = base.extend<{
  /** The directory for temporary files, in which commands have nothing. */
  scratch: string;
  /** Runs a shell script in the tree of a snapshot. */
  run: (keyOrName: string, script: string, ...options: string[]) => ReturnType<CommandLine['overlite']>;
  /** The path of the layer of an id. */
  layer: (id: number) => string;
  /** Kills `run` on "base" while its command goes on. */
  killed: (...options: string[]) => Promise<{ readonly key: string; readonly command: number }>;
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
  killed: async ({ start, undo }, use) =>
    use(async (...options) => {
      const script = 'touch made; echo $$ $OVERLITE_KEY; exec sleep 1000';
      const running = start(['run', 'base', ...options, '--', 'sh', '-c', script]);
      const [pid, key = ''] = (await waitFor('the command', running.stdout)).trim().split(' ');
      const command = Number(pid);
      undo(() => existsSync(`/proc/${command}`) && process.kill(command));
      running.process.kill('SIGKILL');
      await running.exited;
      return { key, command };
    }),
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
    expect(directory).toBe(TREE);
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
    async (on, { layer, run, printed, json, cleanedUp }) => {
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
      ).toBe(`${TREE}\n`);
      process.kill(Number(readFileSync(join(layer(id), 'pid'), 'utf8')));
      await cleanedUp();
      expect(printed('check')).toContain(': clean');
    },
  );

  test('`run --by` runs a command with each mount method', ({ run, overlite }) => {
    for (const by of methodsHere) {
      expect(run('work', 'cat app; grep -c "$PWD" /proc/self/mountinfo', '--by', by)).toEqual({
        status: 0,
        stdout: 'app\n1\n',
        stderr: '',
      });
    }
    expect(overlite('run', 'work', '--by', 'hand', 'true').status).toBe(125);
  });

  test('`run` that is killed leaves nothing mounted, and its workspace until the command has ended', async ({
    example,
    killed,
    printed,
    json,
    run,
  }) => {
    const { key, command } = await killed();
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(example.root);
    expect(json('cleanup')).toEqual({ removed: 0, deferred: [] });
    expect(run('base', 'true').status).toBe(0);
    expect(printed('check')).not.toContain('run-abandoned');
    expect(json('info', key)).toMatchObject({ labels: { 'overlite/run': 'throw-away' } });
    process.kill(command);
    await waitFor('the end of the namespace of the command', () =>
      printed('check', '--only', 'leftovers').includes(
        `info: run-abandoned: "${key}" is the workspace of a command`,
      ),
    );
    expect(json('cleanup')).toEqual({ removed: 1, deferred: [] });
    expect(json('list', 'name~=^run-')).toEqual([]);
  });

  test('`run` removes the workspaces that others have left', async ({ killed, printed, run, json }) => {
    const { command } = await killed();
    process.kill(command);
    await waitFor('the end of the namespace of the command', () =>
      printed('check').includes('run-abandoned'),
    );
    await waitFor('the workspace to be removed', () => {
      expect(run('work', 'true').status).toBe(0);
      return (json('list', 'name~=^run-') as unknown[]).length === 0;
    });
  });

  test('`run --commit` that is killed leaves a workspace that only the user removes', async ({
    killed,
    printed,
    json,
  }) => {
    const { key, command } = await killed('--commit', 'new');
    process.kill(command);
    await waitFor('the end of the namespace of the command', () =>
      printed('check', '--only', 'leftovers').includes(`"${key}" is the workspace of a command`),
    );
    expect(json('cleanup')).toEqual({ removed: 0, deferred: [] });
    expect(printed('diff', key)).toBe('A /made\n');
    expect(printed('remove', key)).toBe(`${key} is removed\n`);
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

  test('`run` has nothing where temporary files are, which others clean', ({ place, scratch, bash }) => {
    symlinkSync(scratch, join(place, 'link'));
    for (const directory of [scratch, join(place, 'link'), join(place, 'nowhere')]) {
      const script = `pwd; pwd -P; ls -A ${scratch}`;
      expect(bash(`TMPDIR=${directory} overlite run base -- sh -c '${script}'`)).toEqual({
        status: 0,
        stdout: `${TREE}\n${TREE}\n`,
        stderr: '',
      });
    }
  });

  test('`run` mounts the tree where any user can reach it by its path', ({ run, bash }) => {
    const asOther = 'setpriv --reuid=1234 --regid=1234 --clear-groups sh -c';
    expect(run('work', `${asOther} 'cd / && cat ${TREE}/app && cd "$OLDPWD" && pwd'`).stdout).toBe(
      `app\n${TREE}\n`,
    );
    const fresh = 'mount -t tmpfs -o mode=755 none /run && umask 077 &&';
    expect(bash(`unshare -m sh -c '${fresh} overlite run work -- stat -c %a /run/overlite-run'`).stdout).toBe(
      '755\n',
    );
  });

  test('`run` mounts the tree in the store where /run cannot be used', ({ example, bash }) => {
    for (const options of ['ro', 'mode=1777', 'uid=1234']) {
      const script = `mount -t tmpfs -o ${options} none /run && overlite run base -- sh -c 'pwd; cat large | wc -c'`;
      expect(bash(`unshare -m sh -c "${script.replaceAll('"', String.raw`\"`)}"`)).toEqual({
        status: 0,
        stdout: `${example.at('run/tree')}\n20000\n`,
        stderr: '',
      });
    }
  });

  test('`run` follows no link in the place of its directory in the store', ({ example, place, bash }) => {
    symlinkSync(place, example.at('run'));
    const before = readdirSync(place);
    const { status, stderr } = bash(
      `unshare -m sh -c 'mount -t tmpfs -o ro none /run && overlite run base true'`,
    );
    expect({ status, stderr }).toEqual({
      status: 125,
      stderr: expect.stringContaining('is not a directory of this user alone') as string,
    });
    expect(readdirSync(place)).toEqual(before);
  });

  test('`run` in a command that runs in a tree shows both trees', ({ run }) => {
    const inner = `pwd; cat ${TREE}/draft ${TREE}-2/large | wc -c`;
    expect(run('work', `overlite run base -- sh -c '${inner}'`).stdout).toBe(`${TREE}-2\n20006\n`);
  });

  test('`run` side by side mounts different trees at the same path', ({ run }) => {
    const script = `ls > mine; for each in base work; do overlite run $each -- sh -c 'ls ${TREE}-2' & done; wait; ls ${TREE}`;
    expect(run('app', script).stdout.split('\n').toSorted().join(' ')).toBe(
      ' app app draft etc etc etc large large large mine',
    );
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

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isRoot } from '../support/needs.ts';
import { SnapshotsClient, failure } from '../support/snapshots-client.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const units = fileURLToPath(new URL('../../systemd', import.meta.url));
const has = (command: string): boolean => spawnSync(command, ['--version']).status === 0;
const needs = isRoot ? '' : ' (needs root)';

/** A server in a process of its own. */
interface Served {
  readonly process: ChildProcess;
  readonly client: SnapshotsClient;
  /** The lines of its log that it has written so far. */
  readonly log: () => Record<string, unknown>[];
  /** Waits for a line of its log. */
  readonly said: (message: string) => Promise<Record<string, unknown>>;
  /** Waits for its end. @returns its status, or the signal that it died of */
  readonly ended: () => Promise<number | string | null>;
}

let made: ReturnType<typeof makeRoot>;
let served: Served[];
beforeEach(() => {
  made = makeRoot();
  served = [];
});
afterEach(async () => {
  try {
    for (const { process, client, ended } of served) {
      client[Symbol.dispose]();
      process.kill('SIGKILL');
      await ended();
    }
    if (existsSync(at('store'))) assertWhole(at('store'));
  } finally {
    made.remove();
  }
});

const at = (name: string): string => join(made.root, name);

/** Runs the server, or what starts it, with more environment. */
function start(
  args: readonly string[],
  { before = [], env = {} }: { before?: string[]; env?: object } = {},
): Served {
  const [command = '', ...rest] = [
    ...before,
    process.execPath,
    main,
    'serve',
    '--root',
    at('store'),
    ...args,
  ];
  const child = spawn(command, rest, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
  });
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>;
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (part: string) => (text += part));
  const lines = (): string[] => text.split('\n').slice(0, -1);
  const log = (): Record<string, unknown>[] =>
    lines()
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const result: Served = {
    process: child,
    client: new SnapshotsClient(at('socket')),
    log,
    async said(message) {
      for (;;) {
        const line = log().find((entry) => entry['message'] === message);
        if (line !== undefined) return line;
        if (child.exitCode !== null) throw new Error(`it has ended: ${text}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
    async ended() {
      const [code, signal] = await exited;
      return code ?? signal;
    },
  };
  served.push(result);
  return result;
}

async function serving(...args: string[]): Promise<Served> {
  const result = start(['--address', at('socket'), ...args]);
  await result.said('serving');
  return result;
}

/** Fetches something over HTTP, from a socket or a port. */
async function get(where: object, path: string, method = 'GET'): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    request({ ...where, path, method, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    })
      .on('error', reject)
      .end();
  });
}

async function makeLargeLayer(client: SnapshotsClient, key: string): Promise<void> {
  const { mounts } = await client.call('Prepare', { key });
  for (let i = 0; i < 100; i += 1) {
    mkdirSync(join(mounts[0]?.source ?? '', `${i}`));
    for (let n = 0; n < 50; n += 1) writeFileSync(join(mounts[0]?.source ?? '', `${i}`, `${n}`), 'x');
  }
}

describe.skipIf(!isRoot)(`overlite serve${needs}`, () => {
  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s lets a running call finish, and the status is 0',
    async (signal) => {
      const { process: child, client, said, ended } = await serving();
      await makeLargeLayer(client, 'k');
      const commit = client.call('Commit', { key: 'k', name: 'n' });
      await client.call('Stat', { key: 'k' });
      child.kill(signal);
      await said('stopping');
      expect(await commit).toEqual({});
      expect(await ended()).toBe(0);
      // All of the log is in the database by now.
      expect(readdirSync(at('store')).filter((name) => /-(wal|shm)$/.test(name))).toEqual([]);
      expect(existsSync(at('socket'))).toBe(false);
      const again = await serving();
      expect((await again.client.call('Stat', { key: 'n' })).info.kind).toBe('COMMITTED');
    },
  );

  test('a second signal ends it at once', async () => {
    const { process: child, client, said, ended } = await serving();
    await makeLargeLayer(client, 'k');
    const call = failure(client.call('Commit', { key: 'k', name: 'n' }));
    await client.call('Stat', { key: 'k' });
    child.kill('SIGTERM');
    await said('stopping');
    child.kill('SIGTERM');
    expect(await ended()).toBe(143);
    expect(await call).toMatchObject({ code: 'UNAVAILABLE' });
    await serving();
  });

  test('what does not finish in time is ended, and that is no failure', async () => {
    const { process: child, client, ended } = await serving('--grace', '0');
    await makeLargeLayer(client, 'k');
    const commit = client.call('Commit', { key: 'k', name: 'n' }).catch(() => {});
    await client.call('Stat', { key: 'k' });
    child.kill('SIGTERM');
    expect(await ended()).toBe(0);
    await commit;
  });

  test('killed at any moment, it has kept what it has acknowledged, and serves again', async () => {
    const acknowledged = new Map<string, string>();
    for (let turn = 0; turn < 3; turn += 1) {
      const { process: child, client, ended } = await serving();
      let count = 0;
      const work = async (worker: number): Promise<void> => {
        for (let i = 0; ; i += 1) {
          const key = `${turn} ${worker} ${i}`;
          await client.call('Prepare', { key, labels: { key } });
          acknowledged.set(key, 'ACTIVE');
          await client.call('Commit', { key, name: `n ${key}`, labels: { key } });
          acknowledged.delete(key);
          acknowledged.set(`n ${key}`, 'COMMITTED');
          if (i % 2 === 0) {
            // From here on it may be there or not.
            acknowledged.delete(`n ${key}`);
            await client.call('Remove', { key: `n ${key}` });
            acknowledged.set(`n ${key}`, 'gone');
          }
          count += 1;
          if (count === 40) child.kill('SIGKILL');
        }
      };
      await Promise.allSettled([0, 1, 2, 3].map(work));
      expect(await ended()).toBe('SIGKILL');
      expect(lstatSync(at('socket')).isSocket()).toBe(true);
    }
    const { client } = await serving();
    const kinds = new Map((await client.blocks()).flat().map(({ name, kind }) => [name, kind]));
    for (const [name, kind] of acknowledged) {
      // A commit that was not acknowledged may have been made nevertheless.
      const found = kinds.get(name) ?? 'gone';
      const allowed = kind === 'ACTIVE' && kinds.has(`n ${name}`) ? 'gone' : kind;
      expect({ name, found }).toEqual({ name, found: allowed });
    }
    await client.call('Cleanup', {});
    expect(readdirSync(at('store/snapshots'))).toHaveLength(kinds.size);
  });

  test('logs failures as lines of JSON, and each call when asked to', async () => {
    const { client, log } = await serving();
    await client.call('Prepare', { key: 'k' });
    await failure(client.call('Commit', { key: 'k', name: 'n', parent: 'nowhere' }));
    await failure(client.call('Mounts', { key: 'a\nb' }));
    await failure(client.call('Update', { info: { name: 'k' }, updateMask: { paths: ['kind'] } }));
    while (log().length < 4) await new Promise((resolve) => setTimeout(resolve, 10));
    const service = 'containerd.services.snapshots.v1.Snapshots';
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    const durationMs = expect.any(Number);
    const line = { time, durationMs, service };
    expect(log().slice(1)).toEqual([
      {
        ...line,
        level: 'info',
        message: 'there is no parent "nowhere"',
        method: 'Commit',
        key: 'k',
        name: 'n',
        code: 'NOT_FOUND',
      },
      {
        ...line,
        level: 'info',
        message: String.raw`there is no snapshot "a\nb"`,
        method: 'Mounts',
        key: 'a\nb',
        code: 'NOT_FOUND',
      },
      {
        ...line,
        level: 'warn',
        message: expect.any(String),
        method: 'Update',
        name: 'k',
        code: 'INVALID_ARGUMENT',
      },
    ]);
  });

  test('--log-level says how much is logged', async () => {
    const quiet = start(['--address', at('socket'), '--log-level', 'error']);
    while (!existsSync(at('socket'))) await new Promise((resolve) => setTimeout(resolve, 10));
    await failure(quiet.client.call('Stat', { key: 'k' }));
    quiet.process.kill('SIGTERM');
    expect(await quiet.ended()).toBe(0);
    expect(quiet.log()).toEqual([]);
    const loud = await serving('--log-level', 'debug');
    await loud.client.call('Prepare', { key: 'k' });
    expect(await loud.said('done')).toMatchObject({
      level: 'debug',
      method: 'Prepare',
      key: 'k',
      code: 'OK',
    });
  });

  test.each(['a socket', 'a port'])('has figures for Prometheus on %s', async (place) => {
    const address = place === 'a port' ? '127.0.0.1:0' : at('metrics');
    const { client, said } = await serving('--metrics', address, '--check-every', '1');
    const { metrics } = await said('serving');
    const [host, port] = String(metrics).split(':');
    const where = place === 'a port' ? { host, port } : { socketPath: String(metrics) };
    if (place === 'a socket') expect(lstatSync(at('metrics')).mode & 0o777).toBe(0o600);
    await client.call('Prepare', { key: 'k' });
    await failure(client.call('Prepare', { key: 'k' }));
    await client.call('Cleanup', {});
    expect(await said('checked')).toMatchObject({ status: 'clean', findings: 0 });
    const { status, text } = await get(where, '/metrics');
    expect(status).toBe(200);
    const figures = new Map<string, number>();
    for (const line of text.split('\n')) {
      if (line === '' || line.startsWith('# HELP ') || line.startsWith('# TYPE ')) continue;
      const [, name = '', value] = /^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) (\S+)$/.exec(line) ?? [];
      expect(line).toBe(`${name} ${value}`);
      figures.set(name, Number(value));
    }
    expect(figures.get('overlite_calls_total{method="Prepare",code="OK"}')).toBe(1);
    expect(figures.get('overlite_calls_total{method="Prepare",code="ALREADY_EXISTS"}')).toBe(1);
    expect(figures.get('overlite_call_duration_seconds_count{method="Prepare"}')).toBe(2);
    expect(figures.get('overlite_transaction_writes_count')).toBe(2);
    expect(figures.get('overlite_pending_removals')).toBe(0);
    expect(figures.get('overlite_check_findings{severity="error"}')).toBe(0);
    expect(figures.get('overlite_check_timestamp_seconds')).toBeGreaterThan(0);
    expect(figures.get('process_open_fds')).toBeGreaterThan(0);
    expect(await get(where, '/')).toMatchObject({ status: 404 });
    expect(await get(where, '/metrics', 'POST')).toMatchObject({ status: 405 });
  });

  test('says what cannot be served, and where', () => {
    const tries: [string[], RegExp][] = [
      [[], /INVALID_ARGUMENT: there is no socket to serve on\n {2}hint: give --address/],
      [['--address', at('nowhere/socket')], /FAILED_PRECONDITION: ".*nowhere" is not a directory/],
      [
        ['--address', at('socket'), '--metrics', '0.0.0.0:9323'],
        /INVALID_ARGUMENT: "0\.0\.0\.0:9323" is not an address/,
      ],
      [['--address', at('socket'), '--metrics', ':9323'], /INVALID_ARGUMENT/],
      [['--address', at('socket'), '--metrics', '127.0.0.1:99999'], /INVALID_ARGUMENT/],
    ];
    for (const [args, stderr] of tries) {
      const run = spawnSync(process.execPath, [main, 'serve', '--root', at('store'), ...args], {
        encoding: 'utf8',
      });
      expect({ args, status: run.status }).toEqual({ args, status: 1 });
      expect(run.stderr).toMatch(stderr);
    }
    for (const args of [
      ['--check-every', '0'],
      ['--log-level', 'loud'],
      ['--grace', 'soon'],
    ]) {
      const run = spawnSync(process.execPath, [main, 'serve', '--root', at('store'), ...args], {
        encoding: 'utf8',
      });
      expect({ args, status: run.status }).toEqual({ args, status: 2 });
    }
  });

  test('says which package is missing', () => {
    // A copy of the package whose dependencies are there, but not what is optional.
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const copy = at('copy');
    mkdirSync(join(copy, 'node_modules'), { recursive: true });
    for (const part of ['dist', 'migrations', 'protos', 'package.json']) {
      execFileSync('cp', ['-r', join(root, part), copy]);
    }
    for (const name of readdirSync(join(root, 'node_modules'))) {
      if (['@grpc', 'grpc-health-check', 'prom-client', '.bin'].includes(name)) continue;
      execFileSync('ln', ['-s', join(root, 'node_modules', name), join(copy, 'node_modules', name)]);
    }
    const run = (...args: string[]): string =>
      spawnSync(process.execPath, [join(copy, 'dist/cli/main.js'), ...args, '--root', at('store')], {
        encoding: 'utf8',
      }).stderr;
    expect(run('prepare', 'k')).toBe('');
    expect(run('serve', '--address', at('socket'))).toMatch(
      /^overlite: FAILED_PRECONDITION: the package "@grpc\/[\w-]+" is not installed\n {2}hint: .*npm install @grpc\/grpc-js @grpc\/proto-loader\n$/,
    );
    execFileSync('ln', ['-s', join(root, 'node_modules/@grpc'), join(copy, 'node_modules/@grpc')]);
    expect(run('serve', '--address', at('socket'), '--metrics', at('metrics'))).toMatch(
      /"prom-client" is not installed/,
    );
    expect(run('serve', '--address', at('socket'), '--health')).toMatch(
      /"grpc-health-check" is not installed/,
    );
  });
});

describe.skipIf(!isRoot || !has('python3'))(
  `a service manager${needs}${has('python3') ? '' : ' (needs python3)'}`,
  () => {
    test.each(['@overlite-test-', ''])(
      'is told when the service is ready and when it stops (%s)',
      async (abstract) => {
        const name = abstract === '' ? at('notify') : `${abstract}${process.pid}`;
        const script = `
import socket, sys
name = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind('\\0' + name[1:] if name.startswith('@') else name)
print('bound', flush=True)
for _ in range(2):
    print(manager.recv(1000).decode().replace('\\n', ' | '), flush=True)
`;
        const manager = spawn('python3', ['-c', script, name], { stdio: ['ignore', 'pipe', 'inherit'] });
        let heard = '';
        manager.stdout.setEncoding('utf8').on('data', (text: string) => (heard += text));
        const hears = async (count: number): Promise<void> => {
          while (heard.split('\n').length <= count) await new Promise((resolve) => setTimeout(resolve, 10));
        };
        await hears(1);
        const { process: child, ended } = start(['--address', at('socket')], {
          env: { NOTIFY_SOCKET: name },
        });
        await hears(2);
        expect(existsSync(at('socket'))).toBe(true);
        child.kill('SIGTERM');
        await hears(3);
        expect(await ended()).toBe(0);
        expect(heard).toBe(
          `bound\nREADY=1 | STATUS=serving on ${at('socket')}\nSTOPPING=1 | STATUS=finishing the running calls\n`,
        );
      },
    );
  },
);

const canActivate = has('systemd-socket-activate');

describe.skipIf(!isRoot || !canActivate)(
  `socket activation${needs}${canActivate ? '' : ' (needs systemd-socket-activate)'}`,
  () => {
    test('serves on the socket that was passed, which stays when the service stops', async () => {
      const before = ['systemd-socket-activate', '--listen', at('socket')];
      const { process: child, client, said, ended } = start([], { before });
      // It is started by the first connection, which waits for it.
      while (!existsSync(at('socket'))) await new Promise((resolve) => setTimeout(resolve, 10));
      await client.call('Prepare', { key: 'k' });
      expect(await said('serving')).toMatchObject({ address: 'descriptor 3' });
      child.kill('SIGTERM');
      expect(await ended()).toBe(0);
      expect(existsSync(at('socket'))).toBe(true);
      expect(existsSync(at('socket.lock'))).toBe(false);
    });

    test('the units are such as systemd takes', () => {
      const names = ['overlite.service', 'overlite.socket'].map((name) => join(units, name));
      const { stderr, stdout } = spawnSync('systemd-analyze', ['verify', ...names], { encoding: 'utf8' });
      expect(`${stdout}${stderr}`).not.toMatch(/overlite\.(service|socket)/);
      expect(readFileSync(names[0] ?? '', 'utf8')).toMatch(/^Type=notify$/m);
    });
  },
);

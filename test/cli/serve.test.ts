import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { copySync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { hasHidden } from '../../src/quote.ts';
import { type CommandLine, type Running, test as base } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { startProcess } from '../support/process.ts';
import { SnapshotsClient, beginUnreadListing, failure } from '../support/snapshots-client.ts';
import { assertWhole } from '../support/store.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

type LogLine = Record<string, unknown>;

/** A server in a process of its own. */
interface Served extends Running {
  readonly client: SnapshotsClient;
  /** The lines of its log that it has written so far. */
  readonly log: () => LogLine[];
  /** Waits for a line of its log. */
  readonly said: (message: string) => Promise<LogLine>;
}

const test = base.extend<{
  /** The path of the socket. */
  socket: string;
  /** Starts a server on the store, which need not be there. */
  serve: (args: readonly string[], options?: Parameters<CommandLine['start']>[1]) => Served;
  /** Starts a server on the socket, and waits until it serves. */
  serving: (...args: string[]) => Promise<Served>;
  /** Takes the write lock of the store, so that no write can end. @returns gives it back */
  lock: () => () => void;
}>({
  socket: async ({ place }, use) => use(join(place, 'socket')),
  serve: async ({ socket, start, undo }, use) =>
    use((args, options) => {
      const running = start(['serve', ...args], options);
      const client = new SnapshotsClient(socket);
      undo(() => client[Symbol.dispose]());
      const log = (): LogLine[] =>
        running
          .stderr()
          .split('\n')
          .slice(0, -1)
          .filter((line) => line.startsWith('{'))
          .map((line) => JSON.parse(line) as LogLine);
      const said = (message: string): Promise<LogLine> =>
        waitFor(`"${message}" in the log`, () => {
          const line = log().find((entry) => entry['message'] === message);
          if (line === undefined && running.hasEnded()) {
            throw new Error(`it has ended without "${message}": ${running.stderr()}`);
          }
          return line;
        });
      return { ...running, client, log, said };
    }),
  serving: async ({ socket, serve }, use) =>
    use(async (...args) => {
      const served = serve(['--address', socket, ...args]);
      await served.said('serving');
      return served;
    }),
  lock: async ({ root }, use) =>
    use(() => {
      const other = new Database(join(root, 'metadata.db'));
      other.exec('begin immediate');
      return () => other.close();
    }),
});
test.override('storeRoot', ({ root }) => root);

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

describe.skipIf(lacking)(`overlite serve${lacking}`, () => {
  test.for(['SIGTERM', 'SIGINT'] as const)(
    '`serve` finishes the running calls on %s, and ends with status 0',
    async (signal, { socket, root, serving, lock }) => {
      const { process: server, client, said, ended } = await serving();
      await client.call('Prepare', { key: 'k' });
      const unlock = lock();
      const commit = client.call('Commit', { key: 'k', name: 'n' });
      // It has begun by now, since calls of a connection are taken in their order.
      await client.call('Stat', { key: 'k' });
      server.kill(signal);
      await said('stopping');
      unlock();
      expect(await commit).toEqual({});
      expect(await ended()).toMatchObject({ status: 0 });
      // All of the log is in the database by now.
      expect(readdirSync(root).filter((name) => /-(wal|shm)$/.test(name))).toEqual([]);
      expect(existsSync(socket)).toBe(false);
      const again = await serving();
      expect((await again.client.call('Stat', { key: 'n' })).info.kind).toBe('COMMITTED');
    },
  );

  test('a second signal ends `serve` at once', async ({ serving, lock }) => {
    const { process: server, client, said, ended } = await serving();
    await client.call('Prepare', { key: 'k' });
    const unlock = lock();
    const call = failure(client.call('Commit', { key: 'k', name: 'n' }));
    await client.call('Stat', { key: 'k' });
    server.kill('SIGTERM');
    await said('stopping');
    server.kill('SIGTERM');
    expect(await ended()).toMatchObject({ status: 143 });
    // It depends on the moment what the client's library makes of a connection that is gone.
    expect(['UNAVAILABLE', 'INTERNAL']).toContain((await call).code);
    unlock();
    await serving();
  });

  test('`serve --grace` ends calls that take longer, with status 0', async ({ socket, serving }) => {
    const { process: server, client, ended } = await serving('--grace', '0');
    await client.call('Prepare', { key: 'k' });
    const { answered } = await beginUnreadListing(socket);
    server.kill('SIGTERM');
    expect(await ended()).toMatchObject({ status: 0 });
    expect(await answered).toBe(false);
  });

  test('`serve --grace` does not wait for the lock of another process either', async ({ serving, lock }) => {
    const { process: server, client, ended } = await serving('--grace', '0', '--busy-timeout', '600');
    await client.call('Prepare', { key: 'k' });
    const unlock = lock();
    const update = failure(client.call('Update', { info: { name: 'k', labels: { a: 'b' } } }));
    await client.call('Stat', { key: 'k' });
    server.kill('SIGTERM');
    expect(await ended()).toMatchObject({ status: 0 });
    expect((await update).code).not.toBe('OK');
    unlock();
    const again = await serving();
    expect((await again.client.call('Stat', { key: 'k' })).info.labels).toEqual({});
  });

  test('`serve` keeps everything it acknowledged when it is killed, and starts again', async ({
    socket,
    root,
    serving,
  }) => {
    const acknowledged = new Map<string, string>();
    for (let turn = 0; turn < 3; turn += 1) {
      const { process: server, client, exited } = await serving();
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
          if (count === 40) server.kill('SIGKILL');
        }
      };
      await Promise.allSettled([0, 1, 2, 3].map(work));
      await exited;
      expect(server.signalCode).toBe('SIGKILL');
      expect(lstatSync(socket).isSocket()).toBe(true);
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
    // No directory is left but those of the snapshots, and skeletons of ids that were never given.
    expect(assertWhole(root, 'select count(*) from snapshot', 'select id from removal')).toEqual([
      [String(kinds.size)],
      [],
    ]);
  });

  test('`serve` logs each call that failed as a line of JSON', async ({ serving }) => {
    const { client, log } = await serving();
    await client.call('Prepare', { key: 'k' });
    await failure(client.call('Commit', { key: 'k', name: 'n', parent: 'nowhere' }));
    await failure(client.call('Mounts', { key: 'a\nb' }));
    await failure(client.call('Update', { info: { name: 'k' }, updateMask: { paths: ['kind'] } }));
    await waitFor('four lines of log', () => log().length >= 4);
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

  test('neither answers nor the log hold characters that control a terminal', async ({ serving }) => {
    const { client, log, stderr } = await serving('--log-level', 'debug');
    const key = 'm\u001B]0;x\u0007\u001B[2J\u202E\u009B';
    const shown = String.raw`"m\u001b]0;x\u0007\u001b[2J\u202e\u009b"`;
    await client.call('Prepare', { key, labels: { [key]: key } });
    const failed = await Promise.all([
      failure(client.call('Prepare', { key })),
      failure(client.call('Commit', { key, name: 'n', parent: `${key}, too` })),
      failure(client.call('Update', { info: { name: key }, updateMask: { paths: [key] } })),
    ]);
    for (const { details } of failed) expect(details).toContain(shown.slice(0, -1));
    await waitFor('the lines of log', () => log().filter((line) => line['key'] === key).length >= 3);
    expect(stderr().split('\n').filter(hasHidden)).toEqual([]);
  });

  test('`serve --log-level` says how much is logged', async ({ socket, serve, serving }) => {
    const quiet = serve(['--address', socket, '--log-level', 'error']);
    await waitFor('the socket', () => existsSync(socket));
    await failure(quiet.client.call('Stat', { key: 'k' }));
    quiet.process.kill('SIGTERM');
    expect(await quiet.ended()).toMatchObject({ status: 0 });
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

  test.for(['a socket', 'a port'])(
    '`serve --metrics` serves metrics for Prometheus on %s',
    async (kind, { place, serving }) => {
      const address = kind === 'a port' ? '127.0.0.1:0' : join(place, 'metrics');
      const { client, said } = await serving('--metrics', address, '--check-every', '1');
      const { metrics } = await said('serving');
      const [host, port] = String(metrics).split(':');
      const where = kind === 'a port' ? { host, port } : { socketPath: String(metrics) };
      if (kind === 'a socket') expect(lstatSync(address).mode & 0o777).toBe(0o600);
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
    },
  );

  test('`serve` refuses an address that cannot be served, and says why', async ({
    place,
    socket,
    together,
  }) => {
    const refused: [args: string[], status: number, stderr: RegExp][] = [
      [[], 1, /INVALID_ARGUMENT: there is no socket to serve on\n {2}hint: give --address/],
      [
        ['--address', join(place, 'nowhere/socket')],
        1,
        /FAILED_PRECONDITION: ".*nowhere" is not a directory/,
      ],
      [
        ['--address', socket, '--metrics', '0.0.0.0:9323'],
        1,
        /INVALID_ARGUMENT: "0\.0\.0\.0:9323" is not an address/,
      ],
      [['--address', socket, '--metrics', ':9323'], 1, /INVALID_ARGUMENT/],
      [['--address', socket, '--metrics', '127.0.0.1:99999'], 1, /INVALID_ARGUMENT/],
      [['--check-every', '0'], 2, /error:/],
      [['--log-level', 'loud'], 2, /error:/],
      [['--grace', 'soon'], 2, /error:/],
    ];
    const ended = await together(...refused.map(([args]) => ['serve', ...args]));
    expect(ended).toMatchObject(
      refused.map(([args, status, stderr]) => ({
        args: ['serve', ...args],
        status,
        stderr: expect.stringMatching(stderr),
      })),
    );
  });

  test.for(['a:b', 'a,b', 'a\\b'])(
    '`serve` refuses the root %j, which containerd would misread in mount options',
    (name, { place, socket, overlite }) => {
      const root = join(place, name, 'store');
      expect(overlite('serve', '--address', socket, '--root', root)).toMatchObject({
        status: 1,
        stderr: expect.stringContaining('INVALID_ARGUMENT: containerd would'),
      });
      expect(existsSync(root)).toBe(false);
    },
  );

  test('`serve` says which optional package is missing', ({ place, socket, bash }) => {
    // A copy of the package whose dependencies are there, but not what is optional.
    const checkout = fileURLToPath(new URL('../..', import.meta.url));
    const modules = join(checkout, 'node_modules');
    const copy = join(place, 'copy');
    for (const part of ['dist', 'migrations', 'protos', 'package.json']) {
      copySync(join(checkout, part), join(copy, part));
    }
    mkdirSync(join(copy, 'node_modules'));
    const link = (name: string): void => symlinkSync(join(modules, name), join(copy, 'node_modules', name));
    const optional = ['@grpc', 'grpc-health-check', 'prom-client'];
    for (const name of readdirSync(modules)) if (![...optional, '.bin'].includes(name)) link(name);
    const errors = (args: string): string => bash(`${copy}/dist/cli/main.js ${args}`).stderr;
    expect(errors('prepare k')).toBe('');
    expect(errors(`serve --address ${socket}`)).toMatch(
      /^overlite: FAILED_PRECONDITION: the package "@grpc\/[\w-]+" is not installed\n {2}hint: .*npm install @grpc\/grpc-js @grpc\/proto-loader\n$/,
    );
    link('@grpc');
    expect(errors(`serve --address ${socket} --metrics ${place}/metrics`)).toMatch(
      /"prom-client" is not installed/,
    );
    expect(errors(`serve --address ${socket} --health`)).toMatch(/"grpc-health-check" is not installed/);
  });
});

const lackingPython = needs('root', 'python3');

/** Hears what a service manager is told, and prints it. */
const MANAGER = `
import socket, sys
name = sys.argv[1]
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind('\\0' + name[1:] if name.startswith('@') else name)
print('bound', flush=True)
for _ in range(2):
    print(manager.recv(1000).decode().replace('\\n', ' | '), flush=True)
`;

describe.skipIf(lackingPython)(`a service manager${lackingPython}`, () => {
  test.for(['a path', 'an abstract name'])(
    '`serve` tells a service manager on %s when it is ready and when it stops',
    async (kind, { place, socket, serve, undo }) => {
      const name = kind === 'a path' ? join(place, 'notify') : `@${place}`;
      const manager = await startProcess('bound\n', 'python3', ['-c', MANAGER, name]);
      undo(() => manager.kill());
      const hears = (what: string): Promise<boolean> =>
        waitFor(`${what} at the service manager`, () => manager.printed.includes(what));
      const { process: server, ended } = serve(['--address', socket], { env: { NOTIFY_SOCKET: name } });
      await hears('READY=1');
      expect(existsSync(socket)).toBe(true);
      server.kill('SIGTERM');
      await hears('STOPPING=1');
      expect(await ended()).toMatchObject({ status: 0 });
      expect(await manager.finish()).toBe(
        `bound\nREADY=1 | STATUS=serving on ${socket}\nSTOPPING=1 | STATUS=finishing the running calls\n`,
      );
    },
  );
});

const lackingSystemd = needs('root', 'systemd-socket-activate', 'systemd-analyze');

describe.skipIf(lackingSystemd)(`systemd${lackingSystemd}`, () => {
  test('`serve` serves on the socket that systemd passes, and leaves it there', async ({
    socket,
    root,
    serve,
  }) => {
    const through = ['systemd-socket-activate', '--listen', socket];
    // It takes no variables along.
    const { process: server, client, said, ended } = serve(['--root', root], { through });
    // It is started by the first connection, which waits for it.
    await waitFor('the socket', () => existsSync(socket));
    await client.call('Prepare', { key: 'k' });
    expect(await said('serving')).toMatchObject({ address: 'descriptor 3' });
    server.kill('SIGTERM');
    expect(await ended()).toMatchObject({ status: 0 });
    expect(existsSync(socket)).toBe(true);
    expect(existsSync(`${socket}.lock`)).toBe(false);
  });

  test('systemd accepts both units, and the service is of type notify', () => {
    const units = fileURLToPath(new URL('../../systemd', import.meta.url));
    const names = ['overlite.service', 'overlite.socket'].map((name) => join(units, name));
    const { stderr, stdout } = spawnSync('systemd-analyze', ['verify', ...names], { encoding: 'utf8' });
    expect(`${stdout}${stderr}`).not.toMatch(/overlite\.(service|socket)/);
    expect(readFileSync(names[0] ?? '', 'utf8')).toMatch(/^Type=notify$/m);
  });
});

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type Server, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { type RunningServer, serve } from '../../src/containerd/index.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { SnapshotsClient } from '../support/snapshots-client.ts';

const lacking = needs('root');

const test = base.extend<{
  /** The path of something in `place`. */
  at: (name: string) => string;
  /** Serves the store, and closes the server after the test. */
  start: (address: string) => Promise<RunningServer>;
}>({
  at: async ({ place }, use) => use((name) => join(place, name)),
  start: async ({ driver, undo }, use) =>
    use(async (address) => {
      const server = await serve(driver, { address });
      undo(() => server.close());
      return server;
    }),
});

async function answers(address: string): Promise<boolean> {
  using client = new SnapshotsClient(address);
  await client.call('Cleanup', {});
  return true;
}

/** Leaves a socket on which nobody listens, as a server does that is killed. */
function leaveStale(address: string): void {
  const script = `
    const { createServer } = require('node:net');
    createServer().listen(${JSON.stringify(address)}, () => process.kill(process.pid, 'SIGKILL'));`;
  spawnSync(process.execPath, ['-e', script]);
}

describe.skipIf(lacking)(`the socket of a server${lacking}`, () => {
  test('the socket of a server has mode 0600, and only its lock is left when the server is closed', async ({
    place,
    at,
    start,
    undo,
  }) => {
    const before = readdirSync(place);
    const umask = process.umask(0);
    undo(() => process.umask(umask));
    const server = await start(at('socket'));
    const status = lstatSync(at('socket'));
    expect(status.isSocket()).toBe(true);
    expect(status.mode & 0o7777).toBe(0o600);
    expect(await answers(server.address)).toBe(true);
    await server.close();
    await server.close();
    expect(readdirSync(place).toSorted()).toEqual([...before, 'socket.lock'].toSorted());
  });

  test('serve() takes a path as long as a socket can have, and refuses a longer, an empty and a cut one', async ({
    at,
    start,
  }) => {
    const name = 'x'.repeat(107 - at('x').length + 1);
    expect(await answers((await start(at(name))).address)).toBe(true);
    await expect(start(at(`${name}x`))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(start('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(start('a\0b')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('serve() replaces a socket that nobody listens on', async ({ at, start }) => {
    leaveStale(at('socket'));
    const { ino } = lstatSync(at('socket'));
    const server = await start(at('socket'));
    expect(lstatSync(at('socket')).ino).not.toBe(ino);
    expect(await answers(server.address)).toBe(true);
  });

  test('serve() refuses to replace a socket that somebody listens on', async ({ at, start, undo }) => {
    const server = await start(at('socket'));
    await expect(start(at('socket'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/^another server listens on ".*socket"$/),
    });
    expect(await answers(server.address)).toBe(true);
    const foreign: Server = createServer((socket) => socket.destroy());
    await new Promise<void>((done) => void foreign.listen(at('foreign'), done));
    undo(() => foreign.close());
    const { ino } = lstatSync(at('foreign'));
    await expect(start(at('foreign'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(lstatSync(at('foreign')).ino).toBe(ino);
  });

  test('of ten servers that start at once on a stale socket, one serves and the others fail', async ({
    at,
    start,
  }) => {
    leaveStale(at('socket'));
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => start(at('socket'))));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected')
        expect(outcome.reason).toMatchObject({ code: 'FAILED_PRECONDITION' });
    }
    expect(await answers(at('socket'))).toBe(true);
  });

  test('serve() refuses to replace a file that is not a socket', async ({ at, start }) => {
    writeFileSync(at('file'), 'precious');
    mkdirSync(at('directory'));
    symlinkSync(at('file'), at('link'));
    for (const name of ['file', 'directory', 'link']) {
      await expect(start(at(name))).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
        message: expect.stringMatching(/exists and is not a socket$/),
      });
    }
    expect(readFileSync(at('link'), 'utf8')).toBe('precious');
  });

  test('close() leaves a file that has replaced the socket', async ({ at, start }) => {
    const server = await start(at('socket'));
    rmSync(at('socket'));
    writeFileSync(at('socket'), 'precious');
    await server.close();
    expect(readFileSync(at('socket'), 'utf8')).toBe('precious');
  });

  test('serve() refuses a directory that is missing, or in which others could put their own socket', async ({
    at,
    start,
  }) => {
    await expect(start(at('nowhere/socket'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    mkdirSync(at('shared'));
    chmodSync(at('shared'), 0o777);
    await expect(start(at('shared/socket'))).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    chmodSync(at('shared'), 0o1777);
    expect(await answers((await start(at('shared/socket'))).address)).toBe(true);
    expect(existsSync(at('shared/socket'))).toBe(true);
  });
});

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
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type RunningServer, serve } from '../../src/containerd/index.ts';
import { OverlayDriver } from '../../src/index.ts';
import { isRoot } from '../support/needs.ts';
import { SnapshotsClient } from '../support/snapshots-client.ts';
import { useStore } from '../support/store.ts';

const store = useStore();
let driver: OverlayDriver;
let undo: (() => unknown)[];
beforeEach(async () => {
  undo = [];
  driver = await OverlayDriver.open(store.root, { backups: false });
});
afterEach(async () => {
  for (const step of undo.toReversed()) await step();
  await driver.close();
});

const at = (name: string): string => join(store.root, name);

async function start(address: string): Promise<RunningServer> {
  const server = await serve(driver, { address });
  undo.push(() => server.close());
  return server;
}

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

describe.skipIf(!isRoot)(`the socket${isRoot ? '' : ' (needs root)'}`, () => {
  test('is of mode 0600, and gone when the server is closed, and nothing is left of its making', async () => {
    const before = readdirSync(store.root);
    const umask = process.umask(0);
    undo.push(() => process.umask(umask));
    const server = await start(at('socket'));
    const status = lstatSync(at('socket'));
    expect(status.isSocket()).toBe(true);
    expect(status.mode & 0o7777).toBe(0o600);
    expect(await answers(server.address)).toBe(true);
    await server.close();
    await server.close();
    expect(readdirSync(store.root).toSorted()).toEqual([...before, 'socket.lock'].toSorted());
  });

  test('may have a path as long as sockets can have, and no longer', async () => {
    const name = 'x'.repeat(107 - at('x').length + 1);
    expect(await answers((await start(at(name))).address)).toBe(true);
    await expect(start(at(`${name}x`))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(start('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(start('a\0b')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('takes the place of one that nobody listens on', async () => {
    leaveStale(at('socket'));
    const { ino } = lstatSync(at('socket'));
    const server = await start(at('socket'));
    expect(lstatSync(at('socket')).ino).not.toBe(ino);
    expect(await answers(server.address)).toBe(true);
  });

  test('does not take the place of one that somebody listens on', async () => {
    const server = await start(at('socket'));
    await expect(start(at('socket'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/^another server listens on ".*socket"$/),
    });
    expect(await answers(server.address)).toBe(true);
    const foreign: Server = createServer((socket) => socket.destroy());
    await new Promise<void>((done) => void foreign.listen(at('foreign'), done));
    undo.push(() => foreign.close());
    const { ino } = lstatSync(at('foreign'));
    await expect(start(at('foreign'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(lstatSync(at('foreign')).ino).toBe(ino);
  });

  test('of several servers that start at once on a stale one, one serves', async () => {
    leaveStale(at('socket'));
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => start(at('socket'))));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected')
        expect(outcome.reason).toMatchObject({ code: 'FAILED_PRECONDITION' });
    }
    expect(await answers(at('socket'))).toBe(true);
  });

  test('takes the place of nothing that is not a socket', async () => {
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

  test('what has been put in its place stays when the server is closed', async () => {
    const server = await start(at('socket'));
    rmSync(at('socket'));
    writeFileSync(at('socket'), 'precious');
    await server.close();
    expect(readFileSync(at('socket'), 'utf8')).toBe('precious');
  });

  test('is in a directory that is there, and in which others cannot put one of theirs', async () => {
    await expect(start(at('nowhere/socket'))).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    mkdirSync(at('shared'));
    chmodSync(at('shared'), 0o777);
    await expect(start(at('shared/socket'))).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    chmodSync(at('shared'), 0o1777);
    expect(await answers((await start(at('shared/socket'))).address)).toBe(true);
    expect(existsSync(at('shared/socket'))).toBe(true);
  });
});

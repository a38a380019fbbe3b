import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/cli.ts';
import { makeDisk } from '../support/disk.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`making and opening a store${lacking}`, () => {
  test.override('storeRoot', ({ root }) => root);

  test('`prepare` creates no store among other files, nor for a parent that cannot exist', ({
    place,
    overlite,
    printed,
  }) => {
    const root = join(place, 'other');
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
    for (const args of [['prepare', 'k'], ['list'], ['info', 'k']]) {
      expect(overlite(...args, '--root', root)).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(/ has layers, but no database\n {2}hint: .* overlite restore\n$/),
      });
    }
  });

  test('commands that do not create a store reject a root without one', ({ root, overlite, printed }) => {
    for (const args of [
      ['list'],
      ['commit', 'n', 'k'],
      ['remove', 'k'],
      ['cleanup'],
      ['mount', 'k', '/mnt'],
    ]) {
      const { status, stderr } = overlite(...args);
      expect({ args, status }).toEqual({ args, status: 1 });
      expect(stderr).toMatch(
        /^overlite: FAILED_PRECONDITION: ".*store" is not the root of a store\n {2}hint: /,
      );
    }
    expect(existsSync(root)).toBe(false);
    expect(printed('prepare', 'first')).toBe('first is active\n');
  });
});

describe.skipIf(lacking)(`a store that others use${lacking}`, () => {
  test('`list`, `tree`, `usage` and `graph` succeed while others change the store', async ({
    example,
    start,
  }) => {
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
    for (const command of ['list', 'tree', 'usage', 'graph', 'list', 'usage']) {
      expect(await start([command]).ended()).toMatchObject({ status: 0, stderr: '' });
    }
    stop.abort();
    await changing;
    await driver.close();
  });

  test('a command waits for another writer, as long as --busy-timeout says', async ({
    example,
    overlite,
    printed,
    json,
    rows,
    start,
  }) => {
    const before = rows();
    const other = new Database(example.at('metadata.db'));
    other.exec('begin immediate');
    expect(overlite('prepare', 'late', 'app', '--busy-timeout', '0.2')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^overlite: UNAVAILABLE: /),
    });
    // Those that only look do not wait.
    expect(printed('list')).toContain('base');
    expect(printed('check')).toContain(': clean');
    const patient = start(['prepare', 'late', 'app']);
    expect(rows()).toEqual(before);
    other.exec('rollback');
    other.close();
    expect(await patient.ended()).toMatchObject({ status: 0 });
    expect(json('info', 'late')).toMatchObject({ kind: 'active', parent: 'app' });
  });
});

const lackingDisk = needs('root', 'mkfs.ext4');

describe.skipIf(lackingDisk)(`a store on a full disk${lackingDisk}`, () => {
  test.override('storeRoot', ({ root }) => root);

  test.for(['tmpfs', 'ext4'] as const)(
    'commands fail with RESOURCE_EXHAUSTED on a full %s, change nothing, and `remove` makes room',
    (type, { overlite, printed }) => {
      const disk = makeDisk(type, type === 'tmpfs' ? 4 : 24);
      try {
        printed('prepare', 'k', '--root', disk.root);
        sh('head -c 300000 /dev/urandom > file', join(disk.root, 'snapshots/1/fs'));
        sh('for i in 1 2; do cat /dev/zero >> filler 2> /dev/null || true; sync -f .; done', disk.path);
        const before = printed('list', '--root', disk.root, '--json');
        for (const args of [
          // More than the reserve holds.
          [
            'prepare',
            'l',
            ...Array.from({ length: 40 }, (_, n) => ['--label', `${n}=${'x'.repeat(4000)}`]).flat(),
          ],
          ['checkpoint', 'n', 'k'],
        ]) {
          const { status, stderr } = overlite(...args, '--root', disk.root);
          expect({ args, status, stderr }).toEqual({
            args,
            status: 1,
            stderr: expect.stringMatching(/^overlite: RESOURCE_EXHAUSTED: /),
          });
        }
        expect(printed('list', '--root', disk.root, '--json')).toBe(before);
        // Taking away is what helps, and works.
        expect(printed('remove', 'k', '--root', disk.root)).toBe('k is removed\n');
        assertWhole(disk.root);
      } finally {
        disk.remove();
      }
    },
  );
});

const lackingSetpriv = needs('root', 'setpriv');

describe.skipIf(lackingSetpriv)(`a store of somebody else${lackingSetpriv}`, () => {
  test('a command fails with PERMISSION_DENIED where the user may not read, write or mount', ({
    place,
    example,
    asUser,
  }) => {
    mkdirSync(join(place, 'target'));
    chmodSync(join(place, 'target'), 0o777);
    const denied = (status: number): object => ({
      status,
      stderr: expect.stringMatching(/^overlite: PERMISSION_DENIED: .*\n(?: {2}hint: .*\n)?$/),
    });
    for (const command of ['list', 'prepare k', 'remove work'])
      expect(asUser(command)).toMatchObject(denied(1));
    expect(asUser('check')).toMatchObject({ status: 8 });
    sh(`chown -R 1234:1234 ${example.root}`, '/');
    expect(asUser('list')).toMatchObject({ status: 0, stderr: '' });
    expect(asUser(`mount work ${place}/target`)).toMatchObject(denied(1));
    expect(asUser('diff work')).toMatchObject(denied(1));
    sh(`chown -R 0:0 ${example.root}`, '/');
  });
});

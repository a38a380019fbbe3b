import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, rmdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ensureDirSync, outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { commitLayer } from '../support/layers.ts';
import { unmount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { assertWhole } from '../support/store.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

const test = base.extend<{
  /** A path in `place` at which there is nothing yet. What is there when the test ends may be no store at all. */
  bad: string;
  /** Asserts that opening a root, which is `bad` if it is not given, fails with a code and changes nothing. */
  refuses: (code: string, given?: string) => Promise<void>;
  /** Mounts on a directory, which is made, until the test ends. */
  mountOn: (target: string, ...args: string[]) => void;
}>({
  bad: async ({ place }, use) => {
    await use(join(place, 'bad'));
  },
  refuses: async ({ place, bad }, use) => {
    const listing = (): string => sh(`find . -printf '%p %M %U %s %T@\\n'`, place);
    await use(async (code, given = bad) => {
      const before = listing();
      await expect(OverlayDriver.open(given)).rejects.toMatchObject({ name: 'SnapshotError', code });
      expect(listing()).toBe(before);
    });
  },
  mountOn: async ({ undo }, use) => {
    await use((target, ...args) => {
      ensureDirSync(target);
      execFileSync('mount', [...args, target]);
      undo(() => unmount(target));
    });
  },
});

test('open() makes a new root that is its owner’s alone, and all in it', async ({ place }) => {
  const root = join(place, 'and', 'below');
  await (await OverlayDriver.open(root)).close();
  const mode = (path: string): number => lstatSync(join(root, path)).mode & 0o7777;
  expect([mode('.'), mode('snapshots'), mode('metadata.db')]).toEqual([0o700, 0o700, 0o600]);
  assertWhole(root);
});

describe('a root that is refused and left as it is', () => {
  test('open() refuses a root that is a file, or below one', async ({ bad, refuses }) => {
    outputFileSync(bad, '');
    await refuses('FAILED_PRECONDITION');
    await refuses('FAILED_PRECONDITION', join(bad, 'below'));
  });

  test('open() refuses a root that is a symbolic link, to something or to nothing', async ({
    place,
    bad,
    refuses,
  }) => {
    mkdirSync(join(place, 'real'));
    symlinkSync('real', bad);
    await refuses('FAILED_PRECONDITION');
    symlinkSync('nothing', `${bad}-dangling`);
    await refuses('FAILED_PRECONDITION', `${bad}-dangling`);
  });

  test('open() refuses a root that is no path at all', async ({ bad, refuses }) => {
    await refuses('INVALID_ARGUMENT', '');
    await refuses('INVALID_ARGUMENT', `${bad}\0`);
    for (const wrong of [undefined, null, 7, {}, Buffer.from(bad)]) {
      await expect(OverlayDriver.open(wrong as string)).rejects.toThrow(TypeError);
    }
  });

  test.for([0o770, 0o707, 0o777, 0o1777].map((mode) => mode.toString(8)))(
    'open() refuses a root of mode %s, which others may write to',
    async (mode, { bad, refuses }) => {
      mkdirSync(bad);
      chmodSync(bad, mode);
      await refuses('PERMISSION_DENIED');
    },
  );

  test('open() refuses a root in which snapshots is a file', async ({ bad, refuses }) => {
    mkdirSync(bad, { mode: 0o700 });
    outputFileSync(join(bad, 'snapshots'), '');
    await refuses('FAILED_PRECONDITION');
  });

  test('open() refuses a root in which snapshots is a symbolic link', async ({ place, bad, refuses }) => {
    mkdirSync(bad, { mode: 0o700 });
    mkdirSync(join(place, 'real'), { mode: 0o700 });
    symlinkSync(join(place, 'real'), join(bad, 'snapshots'));
    await refuses('FAILED_PRECONDITION');
  });

  test('open() refuses a root whose database is a directory, or is not a database', async ({
    bad,
    refuses,
  }) => {
    mkdirSync(bad, { mode: 0o700 });
    mkdirSync(join(bad, 'snapshots'), { mode: 0o700 });
    const database = join(bad, 'metadata.db');
    mkdirSync(database);
    await refuses('FAILED_PRECONDITION');
    rmdirSync(database);
    outputFileSync(database, 'no database, and certainly none of ours. '.repeat(200), { mode: 0o600 });
    await refuses('DATA_LOSS');
  });

  const lackingShell = needs('sqlite3');
  test.skipIf(lackingShell)(
    `open() refuses a database of a newer version, and leaves it as it is${lackingShell}`,
    async ({ bad }) => {
      await (await OverlayDriver.open(bad)).close();
      execFileSync('sqlite3', [join(bad, 'metadata.db'), 'pragma user_version = 4242']);
      const sum = (): string => sh('sha256sum metadata.db', bad);
      const before = sum();
      await expect(OverlayDriver.open(bad)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      expect(sum()).toBe(before);
    },
  );

  test.skipIf(lacking)(`open() refuses the root of another user${lacking}`, async ({ bad, refuses }) => {
    mkdirSync(bad);
    chownSync(bad, 4242, 4242);
    await refuses('PERMISSION_DENIED');
  });
});

describe.skipIf(lacking)(`a root on a filesystem of its own${lacking}`, () => {
  test('open() refuses a root that is read-only', async ({ bad, refuses, mountOn }) => {
    mountOn(bad, '-t', 'tmpfs', '-o', 'ro,mode=700', 'tmpfs');
    await refuses('FAILED_PRECONDITION');
  });

  test('open() refuses a root whose snapshots are on another filesystem', async ({
    bad,
    refuses,
    mountOn,
  }) => {
    mkdirSync(bad, { mode: 0o700 });
    mountOn(join(bad, 'snapshots'), '-t', 'tmpfs', 'tmpfs');
    await refuses('FAILED_PRECONDITION');
  });

  test('open() of a root so small that not even the database fits fails with a SnapshotError', async ({
    bad,
    mountOn,
  }) => {
    mountOn(bad, '-t', 'tmpfs', '-o', 'size=12k,mode=700', 'tmpfs');
    await expect(OverlayDriver.open(bad)).rejects.toMatchObject({ name: 'SnapshotError' });
  });

  test.for(['size=400k', 'size=1m,nr_inodes=24'])(
    'writes on a full tmpfs of %s fail and change nothing, and reads and removals go on',
    async (options, { root, mountOn }) => {
      mountOn(root, '-t', 'tmpfs', '-o', `${options},mode=700`, 'tmpfs');
      await using driver = await OverlayDriver.open(root, { backups: false });
      const keys: string[] = [];
      for (let i = 0; i < 1000; i += 1) {
        try {
          await driver.prepare(`k${i}`, null, { labels: { filler: 'x'.repeat(3000) } });
          keys.push(`k${i}`);
        } catch (error) {
          expect(error).toMatchObject({ name: 'SnapshotError', code: 'RESOURCE_EXHAUSTED' });
          break;
        }
      }
      expect(keys.length).toBeGreaterThan(2);
      expect(keys.length).toBeLessThan(1000);
      const found: string[] = [];
      for await (const { name } of driver.snapshots()) found.push(name);
      expect(found).toEqual(keys);
      assertWhole(root);
      for (const key of keys.slice(0, 2)) expect(await driver.remove(key)).toEqual({});
      await driver.cleanup();
      await driver.prepare('again');
      await driver.close();
      assertWhole(root);
    },
  );

  const lackingFuse = needs('bindfs');
  test.skipIf(lackingFuse)(
    `open() refuses a root on FUSE, as sshfs and glusterfs are${lackingFuse}`,
    async ({ place, bad, refuses, undo }) => {
      const behind = join(place, 'behind');
      for (const directory of [behind, bad]) mkdirSync(directory, { mode: 0o700 });
      execFileSync('bindfs', [behind, bad]);
      undo(() => unmount(bad));
      await refuses('FAILED_PRECONDITION');
    },
  );

  test('open() refuses a root on an overlay', async ({ driver, target }) => {
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    await driver.mount('k', target);
    sh('mkdir root && chmod 700 root', target);
    await expect(OverlayDriver.open(join(target, 'root'))).rejects.toThrow(/overlayfs/);
    await driver.unmount(target);
  });

  const lackingDisk = needs('mkfs.ext4');
  test.skipIf(lackingDisk)(
    `open() refuses a root on a filesystem whose directories do not tell the types of files${lackingDisk}`,
    async ({ undo }) => {
      const disk = makeDisk('ext4', 32, { options: ['-O', '^filetype'] });
      undo(() => disk.remove());
      await expect(OverlayDriver.open(disk.root)).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
        message: expect.stringContaining('types of files') as string,
        hint: expect.stringContaining('filetype') as string,
      });
    },
  );
});

describe.skipIf(lacking)(`a root below a symbolic link${lacking}`, () => {
  test('a store below a symbolic link is committed, compared, mounted, found and deleted as any other', async ({
    place,
    target,
  }) => {
    mkdirSync(join(place, 'real'));
    symlinkSync('real', join(place, 'link'));
    const root = join(place, 'link', 'store');
    await using driver = await OverlayDriver.open(root, { backups: false });
    await commitLayer(driver, 'base');
    await driver.prepare('k', 'base');
    const { directory } = await driver.stat('k');
    expect(directory).toBe(join(place, 'real/store/snapshots/2'));
    outputFileSync(`${directory}/fs/file`, 'new');
    await driver.checkpoint('c', 'k');
    const paths: string[] = [];
    for await (const { path } of driver.diff('k')) paths.push(path);
    expect(paths).toEqual(['/file']);
    expect((await driver.owner(join(root, 'snapshots/2/fs/file'))).snapshot.name).toBe('k');
    expect((await driver.owner(`${directory}/fs/gone/file`)).snapshot.name).toBe('k');
    await driver.commit('n', 'k');
    const { status, findings } = await driver.check();
    expect({ status, findings }).toEqual({ status: 'clean', findings: [] });
    await driver.view('v', 'n');
    symlinkSync(place, join(place, 'again'));
    await driver.mount('v', target);
    await driver.unmount(join(place, 'again', 'target'));
    await driver.remove('v');
    for (const name of ['c', 'n', 'base']) expect(await driver.delete(name)).toEqual({});
    assertWhole(root);
  });
});

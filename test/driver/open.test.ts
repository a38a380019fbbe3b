import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type DriverOptions, OverlayDriver } from '../../src/index.ts';
import { isRoot } from '../support/needs.ts';
import { assertWhole, makeRoot } from '../support/store.ts';

let place: ReturnType<typeof makeRoot>;
let root: string;
let mounted: string[];
beforeEach(() => {
  place = makeRoot();
  root = join(place.root, 'root');
  mounted = [];
});
afterEach(() => {
  for (const target of mounted) execFileSync('umount', [target]);
  place.remove();
});

const listing = (): string =>
  execFileSync('find', [place.root, '-printf', '%p %M %U %s %T@\n'], { encoding: 'utf8' });

/** Asserts that opening the root fails with a code, and changes nothing. */
async function refuses(code: string, given: unknown = root, options?: DriverOptions): Promise<void> {
  const before = listing();
  await expect(OverlayDriver.open(given as string, options)).rejects.toMatchObject({
    name: 'SnapshotError',
    code,
  });
  expect(listing()).toBe(before);
}

function mountOn(target: string, ...args: string[]): void {
  mkdirSync(target, { recursive: true });
  execFileSync('mount', [...args, target]);
  mounted.push(target);
}

test('a new root and all in it are the owner’s alone', async () => {
  await (await OverlayDriver.open(join(root, 'and', 'below'))).close();
  const mode = (path: string): number => lstatSync(join(root, 'and/below', path)).mode & 0o7777;
  expect([mode('.'), mode('snapshots'), mode('metadata.db')]).toEqual([0o700, 0o700, 0o600]);
  assertWhole(join(root, 'and/below'));
});

describe('a root that cannot be used is refused and left as it is', () => {
  test('a file', async () => {
    writeFileSync(root, '');
    await refuses('FAILED_PRECONDITION');
    await refuses('FAILED_PRECONDITION', join(root, 'below'));
  });

  test('a symbolic link, to something or to nothing', async () => {
    mkdirSync(join(place.root, 'real'));
    symlinkSync('real', root);
    await refuses('FAILED_PRECONDITION');
    symlinkSync('nothing', `${root}-dangling`);
    await refuses('FAILED_PRECONDITION', `${root}-dangling`);
  });

  test('no path at all', async () => {
    await refuses('INVALID_ARGUMENT', '');
    await refuses('INVALID_ARGUMENT', `${root}\0`);
    for (const wrong of [undefined, null, 7, {}, Buffer.from(root)]) {
      await expect(OverlayDriver.open(wrong as string)).rejects.toThrow(TypeError);
    }
  });

  test.each([0o770, 0o707, 0o777, 0o1777])('others may write to it: %o', async (mode) => {
    mkdirSync(root);
    chmodSync(root, mode);
    await refuses('PERMISSION_DENIED');
  });

  test('snapshots is a symbolic link or a file', async () => {
    mkdirSync(root, { mode: 0o700 });
    writeFileSync(join(root, 'snapshots'), '');
    await refuses('FAILED_PRECONDITION');
  });

  test('the database is a directory, or of something else', async () => {
    mkdirSync(join(root, 'snapshots'), { recursive: true, mode: 0o700 });
    mkdirSync(join(root, 'metadata.db'));
    await refuses('FAILED_PRECONDITION');
    execFileSync('rmdir', [join(root, 'metadata.db')]);
    writeFileSync(join(root, 'metadata.db'), 'no database, and certainly none of ours. '.repeat(200), {
      mode: 0o600,
    });
    await refuses('DATA_LOSS');
  });

  test('a database of a newer version', async () => {
    await (await OverlayDriver.open(root)).close();
    execFileSync('sqlite3', [join(root, 'metadata.db'), 'pragma user_version = 4242']);
    const sum = (): string => execFileSync('sha256sum', [join(root, 'metadata.db')], { encoding: 'utf8' });
    const before = sum();
    await expect(OverlayDriver.open(root)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(sum()).toBe(before);
  });
});

describe.skipIf(!isRoot)(`roots on filesystems of their own${isRoot ? '' : ' (needs root)'}`, () => {
  test('someone else’s', async () => {
    mkdirSync(root);
    chownSync(root, 4242, 4242);
    await refuses('PERMISSION_DENIED');
  });

  test('read-only', async () => {
    mountOn(root, '-t', 'tmpfs', '-o', 'ro,mode=700', 'tmpfs');
    await refuses('FAILED_PRECONDITION');
  });

  test('snapshots on another filesystem', async () => {
    mkdirSync(root, { mode: 0o700 });
    mountOn(join(root, 'snapshots'), '-t', 'tmpfs', 'tmpfs');
    await refuses('FAILED_PRECONDITION');
  });

  test('so small that not even the database fits', async () => {
    mountOn(root, '-t', 'tmpfs', '-o', 'size=12k,mode=700', 'tmpfs');
    await expect(OverlayDriver.open(root)).rejects.toMatchObject({ name: 'SnapshotError' });
  });

  test.each(['size=400k', 'size=1m,nr_inodes=24'])(
    'full (%s): writes fail and change nothing, reads and removals go on',
    async (options) => {
      mountOn(root, '-t', 'tmpfs', '-o', `${options},mode=700`, 'tmpfs');
      await using driver = await OverlayDriver.open(root);
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
    },
  );

  const hasBindfs = spawnSync('bindfs', ['--version']).status === 0;
  test.skipIf(!hasBindfs)(
    `on FUSE, as sshfs and glusterfs are${hasBindfs ? '' : ' (needs bindfs)'}`,
    async () => {
      mkdirSync(join(place.root, 'behind'), { mode: 0o700 });
      mkdirSync(root, { mode: 0o700 });
      execFileSync('bindfs', [join(place.root, 'behind'), root]);
      mounted.push(root);
      await refuses('FAILED_PRECONDITION');
    },
  );
});

describe('options', () => {
  test.each([
    [{ durability: 'none' }, 'INVALID_ARGUMENT'],
    [{ busyTimeout: -1 }, 'INVALID_ARGUMENT'],
    [{ busyTimeout: Number.NaN }, 'INVALID_ARGUMENT'],
    [{ mountOptions: ['lowerdir=/etc'] }, 'INVALID_ARGUMENT'],
    [{ mountOptions: [''] }, 'INVALID_ARGUMENT'],
    [{ mountOptions: ['xino=off,volatile'] }, 'INVALID_ARGUMENT'],
    [{ seal: 'none' }, 'INVALID_ARGUMENT'],
  ])('%j', (options, code) => refuses(code, root, options as DriverOptions));

  test.each([
    { durability: 7 },
    { asyncRemove: 'yes' },
    { mountOptions: 'x' },
    { mountOptions: [7] },
    { nonsense: 1 },
    [],
    'x',
    null,
  ])('%j is a TypeError', async (options) => {
    await expect(OverlayDriver.open(root, options as DriverOptions)).rejects.toThrow(TypeError);
  });

  test('mount options are added to overlays, and not twice', async () => {
    const options = async (...mountOptions: string[]): Promise<readonly string[]> => {
      await using driver = await OverlayDriver.open(root, { mountOptions });
      if (!(await driver.exists('base'))) {
        await driver.prepare('k');
        await driver.commit('base', 'k');
        await driver.prepare('k', 'base');
      }
      return (await driver.mounts('k'))[0]?.options.slice(3) ?? [];
    };
    expect(await options('xino=off', 'index=on')).toEqual(['xino=off', 'index=on']);
    expect(await options()).toEqual(['index=off']);
  });
});

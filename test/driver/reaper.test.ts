import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { mount, unmount, withMount } from '../support/mount.ts';
import { isRoot } from '../support/needs.ts';
import { makeRoot, useStore } from '../support/store.ts';

const store = useStore();
let outside: ReturnType<typeof makeRoot>;
let driver: OverlayDriver;
let undo: (() => void)[];
beforeEach(async () => {
  outside = makeRoot();
  undo = [];
  driver = await OverlayDriver.open(store.root);
});
afterEach(async () => {
  for (const step of undo.toReversed()) step();
  await driver.close();
  outside.remove();
});

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
}

const snapshots = (): string[] => readdirSync(join(store.root, 'snapshots')).toSorted();
const fs = async (key: string): Promise<string> => `${(await driver.stat(key)).directory}/fs`;

describe.skipIf(!isRoot)(`what is in use is not deleted${isRoot ? '' : ' (needs root)'}`, () => {
  const use: Readonly<Record<string, (layer: string) => Promise<() => void> | (() => void)>> = {
    'bound elsewhere': (layer) => {
      run('mount', '--bind', layer, outside.root);
      return () => unmount(outside.root);
    },
    'a mount below it, of the same filesystem': (layer) => {
      mkdirSync(`${layer}/below`);
      writeFileSync(`${outside.root}/precious`, 'x');
      run('mount', '--bind', outside.root, `${layer}/below`);
      return () => unmount(`${layer}/below`);
    },
    'the upper directory of an overlay': (layer) => {
      const lower = join(outside.root, 'lower');
      const target = join(outside.root, 'target');
      for (const path of [lower, target]) mkdirSync(path);
      mount(
        [
          {
            type: 'overlay',
            source: 'overlay',
            options: [`lowerdir=${lower}`, `upperdir=${layer}`, `workdir=${layer}/../work`],
          },
        ],
        target,
      );
      return () => unmount(target);
    },
    'a lower directory of an overlay': (layer) => {
      const target = join(outside.root, 'target');
      for (const path of [join(outside.root, 'other'), target]) mkdirSync(path);
      mount(
        [
          {
            type: 'overlay',
            source: 'overlay',
            options: [`lowerdir=${join(outside.root, 'other')}:${layer}`],
          },
        ],
        target,
      );
      return () => unmount(target);
    },
    'bound in another mount namespace': async (layer) => {
      const script = `mount --bind '${layer}' '${outside.root}' && echo ready && exec sleep 1000`;
      const process = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await new Promise((resolve) => process.stdout.once('data', resolve));
      return () => {
        process.kill('SIGKILL');
        execFileSync('sh', [
          '-c',
          `while [ -e /proc/${process.pid}/ns/mnt ] && readlink /proc/${process.pid}/ns/mnt >/dev/null 2>&1; do sleep 0.01; done`,
        ]);
      };
    },
  };

  test.each(Object.entries(use))('%s', async (_, start) => {
    await driver.prepare('k');
    const layer = await fs('k');
    writeFileSync(`${layer}/file`, 'x');
    undo.push(await start(layer));
    expect((await driver.remove('k')).deferred).toMatch(/mount|uses it/);
    expect(readFileSync(`${layer}/file`, 'utf8')).toBe('x');
    expect((await driver.cleanup()).deferred).toHaveLength(1);
    expect(await driver.exists('k')).toBe(false);
    undo.pop()?.();
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
    expect(snapshots()).toEqual([]);
    expect(await driver.cleanup()).toEqual({ removed: 0, deferred: [] });
  });

  test('what cannot be deleted stays in the journal, and is deleted when it can be', async () => {
    await driver.prepare('k');
    writeFileSync(`${await fs('k')}/file`, 'x');
    const file = `${await fs('k')}/file`;
    run('chattr', '+i', file);
    undo.push(() => existsSync(file) && run('chattr', '-i', file));
    expect((await driver.remove('k')).deferred).toMatch(/EPERM/);
    run('chattr', '-i', file);
    expect((await driver.cleanup()).removed).toBe(1);
  });

  test('a volatile mount leaves a mark, and a directory of mode 000, behind, which go too', async () => {
    await driver.prepare('base');
    await driver.commit('b', 'base');
    await driver.prepare('k', 'b');
    const [overlay] = await driver.mounts('k');
    await withMount(
      [{ type: 'overlay', source: 'overlay', options: [...(overlay?.options ?? []), 'volatile'] }],
      async (tree) => writeFileSync(join(tree, 'file'), 'x'),
    );
    const work = join((await driver.stat('k')).directory ?? '', 'work', 'work');
    expect(statSync(work).mode & 0o777).toBe(0);
    expect(existsSync(join(work, 'incompat/volatile'))).toBe(true);
    const { directory } = await driver.commit('n', 'k');
    await driver.cleanup();
    expect(readdirSync(directory ?? '')).toEqual(['fs']);
  });

  test('another filesystem that is mounted below it', async () => {
    await driver.prepare('k');
    mkdirSync(`${await fs('k')}/below`);
    run('mount', '-t', 'tmpfs', 'tmpfs', `${await fs('k')}/below`);
    const below = `${await fs('k')}/below`;
    undo.push(() => unmount(below));
    writeFileSync(`${below}/precious`, 'x');
    expect((await driver.remove('k')).deferred).toMatch(/mount point/);
    expect(readFileSync(`${below}/precious`, 'utf8')).toBe('x');
    undo.pop()?.();
    expect((await driver.cleanup()).removed).toBe(1);
  });
});

describe('deletion', () => {
  test('does not follow a symbolic link, in a layer or in place of one', async () => {
    writeFileSync(join(outside.root, 'precious'), 'x');
    await driver.prepare('k');
    symlinkSync(outside.root, `${await fs('k')}/link`);
    await driver.prepare('l');
    renameSync(await fs('l'), `${await fs('l')}-away`);
    symlinkSync(outside.root, await fs('l'));
    expect(await driver.remove('k')).toEqual({});
    expect(await driver.remove('l')).toEqual({});
    expect(snapshots()).toEqual([]);
    expect(readdirSync(outside.root)).toEqual(['precious']);
  });

  test('is of what the journal names and nothing else', async () => {
    mkdirSync(join(store.root, 'snapshots/1000/fs'), { recursive: true });
    await driver.prepare('k');
    await driver.remove('k');
    await driver.cleanup();
    expect(snapshots()).toEqual(['1000']);
    run('rm', '-r', join(store.root, 'snapshots/1000'));
  });

  test.skipIf(!isRoot)(
    `by someone other than root goes through what he made unwritable${isRoot ? '' : ' (needs root)'}`,
    () => {
      const script = `
      import { OverlayDriver } from '${new URL('../../dist/index.js', import.meta.url).href}';
      import { execFileSync } from 'node:child_process';
      const driver = await OverlayDriver.open('${outside.root}');
      await driver.prepare('k');
      const { directory } = await driver.stat('k');
      execFileSync('sh', ['-c', 'mkdir -p a/b c d/e && touch a/b/f && chmod 500 a/b a && chmod 000 c && chmod 400 d'], { cwd: directory + '/fs' });
      console.log(JSON.stringify(await driver.remove('k')));
      await driver.close();`;
      run('chown', '65534:65534', outside.root);
      const options = { uid: 65534, gid: 65534, encoding: 'utf8' } as const;
      const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], options);
      expect(JSON.parse(stdout)).toEqual({});
      expect(readdirSync(join(outside.root, 'snapshots'))).toEqual([]);
    },
  );

  test('that was interrupted goes on after the next open', async () => {
    for (const key of ['a', 'b', 'c']) {
      await driver.prepare(key);
      run('sh', '-c', `cd '${await fs(key)}' && mkdir $(seq 50) && touch $(seq -f 'f%g' 50)`);
    }
    await driver.prepare('kept');
    await using lazy = await OverlayDriver.open(store.root, { asyncRemove: true });
    for (const key of ['a', 'b', 'c']) await lazy.remove(key);
    // As a kill in the middle of it leaves it.
    run('rm', '-r', join(store.root, 'snapshots/1/fs/7'), join(store.root, 'snapshots/2/fs'));
    expect(snapshots()).toEqual(['1', '2', '3', '4']);
    await using next = await OverlayDriver.open(store.root);
    while (snapshots().length > 1) await new Promise((resolve) => setImmediate(resolve));
    expect(snapshots()).toEqual(['4']);
    expect(await next.exists('kept')).toBe(true);
  });

  test('that goes on after an open does not keep the driver from being closed', async () => {
    await using lazy = await OverlayDriver.open(store.root, { asyncRemove: true });
    for (let i = 0; i < 200; i += 1) await lazy.prepare(`k${i}`);
    for (let i = 0; i < 200; i += 1) await lazy.remove(`k${i}`);
    const next = await OverlayDriver.open(store.root);
    await new Promise((resolve) => setImmediate(resolve));
    await next.close();
    const left = snapshots().length;
    expect(left).toBeGreaterThan(0);
    expect((await lazy.cleanup()).deferred).toEqual([]);
    expect(snapshots()).toEqual([]);
  });

  test('is left to cleanup where that is asked for', async () => {
    await using other = await OverlayDriver.open(store.root, { asyncRemove: true });
    await other.prepare('k');
    await other.prepare('l');
    await other.commit('n', 'l');
    expect(await other.remove('k')).toEqual({});
    expect(snapshots()).toEqual(['1', '2']);
    expect(await driver.cleanup()).toEqual({ removed: 2, deferred: [] });
    expect(snapshots()).toEqual(['2']);
  });

  test('of a thousand directories side by side and of many files', async () => {
    await driver.prepare('k');
    const layer = await fs('k');
    run('sh', '-c', `cd '${layer}' && mkdir $(seq 1000) && touch $(seq -f 'f%g' 2000)`);
    expect((await driver.usage('k')).inodes).toBe(3001);
    expect(await driver.remove('k')).toEqual({});
    expect(snapshots()).toEqual([]);
  });
});

describe('a directory that is in the way of a new id', () => {
  test('is used again if it is the empty skeleton of a crash', async () => {
    for (const part of ['fs', 'work']) mkdirSync(join(store.root, 'snapshots/1', part), { recursive: true });
    await driver.prepare('k');
    expect(existsSync(join(store.root, 'lost+found'))).toBe(false);
  });

  test('is kept in lost+found if it holds anything', async () => {
    mkdirSync(join(store.root, 'snapshots/1/fs'), { recursive: true });
    writeFileSync(join(store.root, 'snapshots/1/fs/precious'), 'x');
    await driver.prepare('k');
    const [kept] = readdirSync(join(store.root, 'lost+found'));
    expect(readFileSync(join(store.root, 'lost+found', kept ?? '', 'fs/precious'), 'utf8')).toBe('x');
    expect(readdirSync(await fs('k'))).toEqual([]);
  });
});

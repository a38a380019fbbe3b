import {
  existsSync,
  linkSync,
  lstatSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { layerOf } from '../support/layers.ts';
import { withMount } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

/** Prepares, mounts, writes and commits one layer. */
async function commit(
  driver: OverlayDriver,
  name: string,
  parent: string | null,
  write: (tree: string) => unknown,
): Promise<void> {
  await withMount(await driver.prepare(`making ${name}`, parent), async (tree) => void write(tree));
  await driver.commit(name, `making ${name}`);
}

/** Mounts a workspace on a committed snapshot and looks at it. */
async function look(driver: OverlayDriver, name: string, read: (tree: string) => unknown): Promise<void> {
  await withMount(await driver.prepare(`looking at ${name}`, name), async (tree) => void read(tree));
  await driver.remove(`looking at ${name}`);
}

describe.skipIf(lacking)(`layers through real mounts${lacking}`, () => {
  test('every later layer shows files and directories as they were changed, deleted, made again and renamed', async ({
    driver,
  }) => {
    await commit(driver, 'base', null, (tree) => {
      sh(
        'mkdir -p d/e again moved; echo 1 > d/file; echo 1 > d/e/deep; echo 1 > gone; echo 1 > again/old; echo 1 > moved/m',
        tree,
      );
    });
    await commit(driver, 'next', 'base', (tree) => {
      sh(
        'echo 2 > d/file; rm gone; rm -r again; mkdir again; echo 2 > again/new; cp -a moved m2; rm -r moved; mv m2 renamed; rm -r d/e',
        tree,
      );
    });
    await commit(driver, 'last', 'next', (tree) => sh('echo 3 > gone; mv d/file d/other', tree));
    const files = (tree: string): string => sh('find . -type f | LC_ALL=C sort', tree);
    await look(driver, 'base', (tree) =>
      expect(files(tree)).toBe('./again/old\n./d/e/deep\n./d/file\n./gone\n./moved/m\n'),
    );
    await look(driver, 'next', (tree) => expect(files(tree)).toBe('./again/new\n./d/file\n./renamed/m\n'));
    await look(driver, 'last', (tree) => {
      expect(files(tree)).toBe('./again/new\n./d/other\n./gone\n./renamed/m\n');
      expect(sh('cat gone d/other', tree)).toBe('3\n2\n');
    });
  });

  test('owners, modes, hard links, symbolic links, whiteouts and special files survive two commits', async ({
    driver,
  }) => {
    await commit(driver, 'base', null, (tree) => {
      writeFileSync(join(tree, 'file'), 'x');
      linkSync(join(tree, 'file'), join(tree, 'link'));
      symlinkSync('/nowhere', join(tree, 'symlink'));
      sh('chown 12:34 file; chmod 4751 file; mkfifo fifo; mknod -m 644 null c 1 3; mkdir -m 1777 tmp', tree);
    });
    await commit(driver, 'next', 'base', (tree) => sh('rm fifo; chown 56:78 tmp', tree));
    await look(driver, 'next', (tree) => {
      expect(sh('LC_ALL=C stat -c "%n %F %u:%g %a" *; stat -c %h file', tree)).toBe(
        [
          'file regular file 12:34 4751',
          'link regular file 12:34 4751',
          'null character special file 0:0 644',
          'symlink symbolic link 0:0 777',
          'tmp directory 56:78 1777',
          '2',
          '',
        ].join('\n'),
      );
    });
  });

  test('a new layer has the owner and the mode of its parent, whatever the umask', async ({
    driver,
    undo,
  }) => {
    const umask = process.umask(0o077);
    undo(() => process.umask(umask));
    await commit(driver, 'base', null, (tree) => {
      expect(lstatSync(tree).mode & 0o7777).toBe(0o755);
      sh('chown 11:22 .; chmod 2750 .', tree);
    });
    await look(driver, 'base', (tree) => {
      expect(lstatSync(tree)).toMatchObject({ uid: 11, gid: 22 });
      expect(lstatSync(tree).mode & 0o7777).toBe(0o2750);
    });
    await driver.prepare('k');
    const { directory } = await driver.stat('k');
    expect(lstatSync(`${directory}/work`).mode & 0o7777).toBe(0o711);
    expect(lstatSync(`${directory}`).mode & 0o7777).toBe(0o700);
  });

  test('128 layers that each add, change and delete a file show the right files', async ({ driver }) => {
    await commit(driver, 'l0', null, (tree) => writeFileSync(join(tree, 'changing'), '0'));
    for (let i = 1; i <= 128; i += 1) {
      await commit(driver, `l${i}`, `l${i - 1}`, (tree) => {
        writeFileSync(join(tree, 'changing'), `${i}`);
        writeFileSync(join(tree, `added-${i}`), `${i}`);
        if (i > 10) rmSync(join(tree, `added-${i - 10}`));
      });
    }
    await look(driver, 'l128', (tree) => {
      const expected = Array.from({ length: 10 }, (_, i) => `added-${119 + i}`);
      expect(readdirSync(tree).toSorted()).toEqual([...expected, 'changing'].toSorted());
      expect(readFileSync(join(tree, 'changing'), 'utf8')).toBe('128');
    });
    expect(await driver.chain('l128')).toHaveLength(128);
  });

  test.for([
    'with space',
    'with,comma',
    'with:colon',
    'with\\backslash',
    'ünïcödé \u{1F600}',
    'with\nnewline',
  ])('mount(8) mounts what mounts() gives of a store at %j', async (name, { place }) => {
    await using driver = await OverlayDriver.open(join(place, name), { backups: false });
    await commit(driver, 'one', null, (tree) => writeFileSync(join(tree, 'one'), 'one'));
    await commit(driver, 'two', 'one', (tree) => writeFileSync(join(tree, 'two'), 'two'));
    await withMount(await driver.view('v', 'two'), async (tree) =>
      expect(readdirSync(tree).toSorted()).toEqual(['one', 'two']),
    );
  });

  test('cleanup() deletes the work directory of a layer that was committed while mounted once it is unmounted', async ({
    driver,
  }) => {
    await commit(driver, 'base', null, () => {});
    let directory: string | null = null;
    await withMount(await driver.prepare('k', 'base'), async (tree) => {
      writeFileSync(join(tree, 'file'), 'x');
      ({ directory } = await driver.commit('n', 'k'));
      const { deferred } = await driver.cleanup();
      expect(deferred).toEqual([{ path: `${directory}/work`, reason: expect.stringContaining('uses it') }]);
      writeFileSync(join(tree, 'late'), 'still writable');
    });
    expect(await driver.cleanup()).toEqual({ removed: 1, deferred: [] });
    expect(existsSync(`${directory}/work`)).toBe(false);
    expect(readdirSync(await layerOf(driver, 'n')).toSorted()).toEqual(['file', 'late']);
  });
});

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { withMount } from '../support/mount.ts';
import { isRoot } from '../support/needs.ts';
import { useStore } from '../support/store.ts';

const store = useStore();
let driver: OverlayDriver;
beforeEach(async () => {
  driver = await OverlayDriver.open(store.root);
});
afterEach(() => driver.close());

/** Prepares, mounts, writes and commits one layer. */
async function layer(name: string, parent: string | null, write: (tree: string) => void): Promise<void> {
  await withMount(await driver.prepare(`making ${name}`, parent), async (tree) => write(tree));
  await driver.commit(name, `making ${name}`);
}

async function look(name: string, read: (tree: string) => void): Promise<void> {
  await withMount(await driver.prepare(`looking at ${name}`, name), async (tree) => read(tree));
  await driver.remove(`looking at ${name}`);
}

const sh = (script: string, cwd: string): string =>
  execFileSync('sh', ['-ec', script], { cwd, encoding: 'utf8' });

describe.skipIf(!isRoot)(`what the driver returns is mounted${isRoot ? '' : ' (needs root)'}`, () => {
  test('files and directories changed, deleted, made again and renamed are that in every later layer', async () => {
    await layer('base', null, (tree) => {
      sh(
        'mkdir -p d/e again moved; echo 1 > d/file; echo 1 > d/e/deep; echo 1 > gone; echo 1 > again/old; echo 1 > moved/m',
        tree,
      );
    });
    await layer('next', 'base', (tree) => {
      sh(
        'echo 2 > d/file; rm gone; rm -r again; mkdir again; echo 2 > again/new; cp -a moved m2; rm -r moved; mv m2 renamed; rm -r d/e',
        tree,
      );
    });
    await layer('last', 'next', (tree) => sh('echo 3 > gone; mv d/file d/other', tree));
    await look('base', (tree) =>
      expect(sh('find . -type f | sort', tree)).toBe(
        './again/old\n./d/e/deep\n./d/file\n./gone\n./moved/m\n',
      ),
    );
    await look('next', (tree) =>
      expect(sh('find . -type f | sort', tree)).toBe('./again/new\n./d/file\n./renamed/m\n'),
    );
    await look('last', (tree) => {
      expect(sh('find . -type f | sort', tree)).toBe('./again/new\n./d/other\n./gone\n./renamed/m\n');
      expect(sh('cat gone d/other', tree)).toBe('3\n2\n');
    });
  });

  test('owners, modes, hard links, symbolic links, whiteouts and special files survive', async () => {
    await layer('base', null, (tree) => {
      writeFileSync(join(tree, 'file'), 'x');
      linkSync(join(tree, 'file'), join(tree, 'link'));
      symlinkSync('/nowhere', join(tree, 'symlink'));
      sh('chown 12:34 file; chmod 4751 file; mkfifo fifo; mknod null c 1 3; mkdir -m 1777 tmp', tree);
    });
    await layer('next', 'base', (tree) => sh('rm fifo; chown 56:78 tmp', tree));
    await look('next', (tree) => {
      expect(sh('stat -c "%n %F %u:%g %a" * ; stat -c %h file', tree)).toBe(
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

  test('a new layer has the owner and the mode of its parent, whatever the umask', async () => {
    const umask = process.umask(0o077);
    try {
      await layer('base', null, (tree) => {
        expect(lstatSync(tree).mode & 0o7777).toBe(0o755);
        sh('chown 11:22 .; chmod 2750 .', tree);
      });
      await look('base', (tree) => {
        expect(lstatSync(tree)).toMatchObject({ uid: 11, gid: 22 });
        expect(lstatSync(tree).mode & 0o7777).toBe(0o2750);
      });
      await driver.prepare('k');
      const { directory } = await driver.stat('k');
      expect(lstatSync(`${directory}/work`).mode & 0o7777).toBe(0o711);
      expect(lstatSync(`${directory}`).mode & 0o7777).toBe(0o700);
    } finally {
      process.umask(umask);
    }
  });

  test('the root of an id-mapped layer belongs to the mapped root', async () => {
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:100000:65536',
      'containerd.io/snapshot/gidmapping': '1:5:1,0:200000:65536',
    };
    await driver.prepare('k', null, { labels });
    expect(lstatSync(`${(await driver.stat('k')).directory}/fs`)).toMatchObject({
      uid: 100_000,
      gid: 200_000,
    });
    await using remapping = await OverlayDriver.open(store.root, { remapIds: true });
    expect((await remapping.mounts('k'))[0]?.options).toEqual([
      'uidmap=0:100000:65536',
      'gidmap=1:5:1,0:200000:65536',
      'rw',
      'rbind',
    ]);
  });

  test('128 layers, each adding, changing and deleting, read back right', async () => {
    await layer('l0', null, (tree) => writeFileSync(join(tree, 'changing'), '0'));
    for (let i = 1; i <= 128; i += 1) {
      await layer(`l${i}`, `l${i - 1}`, (tree) => {
        writeFileSync(join(tree, 'changing'), `${i}`);
        writeFileSync(join(tree, `added-${i}`), `${i}`);
        if (i > 10) rmSync(join(tree, `added-${i - 10}`));
      });
    }
    await look('l128', (tree) => {
      const expected = Array.from({ length: 10 }, (_, i) => `added-${119 + i}`);
      expect(readdirSync(tree).toSorted()).toEqual([...expected, 'changing'].toSorted());
      expect(readFileSync(join(tree, 'changing'), 'utf8')).toBe('128');
    });
    expect(await driver.chain('l128')).toHaveLength(128);
  });

  test.each([
    'with space',
    'with,comma',
    'with:colon',
    'with\\backslash',
    'ünïcödé \u{1F600}',
    'with\nnewline',
  ])('a root path %j mounts right', async (name) => {
    const root = join(store.root, name);
    await using other = await OverlayDriver.open(root);
    const commit = async (to: string, key: string, parent: string | null): Promise<void> => {
      await withMount(await other.prepare(key, parent), async (tree) => writeFileSync(join(tree, to), to));
      await other.commit(to, key);
    };
    await commit('one', 'k', null);
    await commit('two', 'k', 'one');
    await withMount(await other.view('v', 'two'), async (tree) =>
      expect(readdirSync(tree).toSorted()).toEqual(['one', 'two']),
    );
    await other.close();
    rmSync(root, { recursive: true });
  });

  test('the work directory of a layer that is committed while mounted goes once it no longer is', async () => {
    await layer('base', null, () => {});
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
    expect(readdirSync(`${directory}/fs`).toSorted()).toEqual(['file', 'late']);
  });
});

describe('usage and seal', () => {
  test('count hard links once, take names that are no UTF-8, and see every change of metadata', async () => {
    const [mount] = await driver.prepare('k');
    const tree = mount?.source ?? '';
    sh(
      `echo x > a; ln a b; mkdir d; mkfifo d/p; ln -s a d/s; truncate -s 1M sparse; printf x > "$(printf 'bad\\377name')"`,
      tree,
    );
    expect((await driver.usage('k')).inodes).toBe(7 + 0);
    expect((await driver.usage('k')).size).toBe(Number(sh('du -s -B 512 . | cut -f 1', tree)) * 512);
    const seen = new Set([(await driver.seal('k')).digest]);
    expect(await driver.seal('k')).toMatchObject({ digest: [...seen][0] });
    for (const change of [
      'chmod 600 a',
      'touch -d 2001-01-01T00:00:00.000000001 d/p',
      'ln -sfn b d/s',
      'mv sparse other',
      'truncate -s 2M other',
      'rm d/p',
    ]) {
      sh(change, tree);
      seen.add((await driver.seal('k')).digest);
    }
    expect(seen.size).toBe(7);
    for (const digest of seen) expect(digest).toMatch(/^metadata1:[0-9a-f]{64}$/);
  });

  test('of a tree deeper than any path can be long, which can be removed too', async () => {
    const [mount] = await driver.prepare('k');
    sh(
      `i=0; while [ $i -lt 60 ]; do mkdir ${'n'.repeat(200)}; cd -P ${'n'.repeat(200)}; i=$((i+1)); done; echo x > file`,
      mount?.source ?? '',
    );
    expect((await driver.usage('k')).inodes).toBe(62);
    expect((await driver.seal('k')).usage.inodes).toBe(62);
    expect(await driver.remove('k')).toEqual({});
    expect(readdirSync(join(store.root, 'snapshots'))).toEqual([]);
  });

  test('a layer that is gone, or was replaced by a symbolic link, is DATA_LOSS, and the key stays', async () => {
    const [mount] = await driver.prepare('k');
    const fs = mount?.source ?? '';
    for (const damage of [(): void => {}, (): void => symlinkSync('/etc', fs)]) {
      renameSync(fs, `${fs}-away`);
      damage();
      await expect(driver.usage('k')).rejects.toMatchObject({ code: 'DATA_LOSS' });
      await expect(driver.commit('n', 'k')).rejects.toMatchObject({ code: 'DATA_LOSS' });
      rmSync(fs, { force: true });
      renameSync(`${fs}-away`, fs);
    }
    await driver.commit('n', 'k');
    rmSync(fs, { recursive: true });
    await expect(driver.prepare('on it', 'n')).rejects.toMatchObject({ code: 'DATA_LOSS' });
    mkdirSync(fs);
  });
});

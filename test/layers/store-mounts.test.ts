import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { HeldRoot } from '../../src/layers/held-root.ts';
import { StoreMounts, type Use } from '../../src/layers/store-mounts.ts';
import { mount } from '../../src/mount/mount.ts';
import type { MountMethod } from '../../src/snapshot.ts';
import { test as base } from '../support/fixtures.ts';
import { methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';
import { type StartedProcess, startProcess } from '../support/process.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root', 'busybox');

interface Store {
  readonly root: string;
  readonly mounts: StoreMounts;
  /** The layer of an id. */
  readonly fs: (id: number) => string;
  /** What uses the directory of an id. */
  readonly use: (id: number) => Promise<Use | undefined>;
}

/** Makes the directories of a store. `closing` gets what closes it. */
function makeStore(root: string, closing: (close: () => void) => void): Store {
  for (const id of [1, 2, 3, 4, 12]) {
    mkdirSync(join(root, 'snapshots', String(id), 'fs', 'd'), { recursive: true });
    mkdirSync(join(root, 'snapshots', String(id), 'work'));
  }
  const held = new HeldRoot(root);
  closing(() => held.close());
  const mounts = new StoreMounts(held);
  const use = async (id: number): Promise<Use | undefined> => (await mounts.survey()).findUse(String(id));
  return { root, mounts, use, fs: (id) => held.layout.fs(id) };
}

const test = base.extend<{
  /** A store, of which there are only the directories of layers. */
  layers: Store;
  /** Runs a script in `place`; its mounts are undone after the test. */
  run: (script: string) => void;
  /** Starts a script in another namespace, in `place`, until the test ends. It has to print "ready". */
  start: (script: string, ...options: string[]) => Promise<StartedProcess>;
}>({
  layers: async ({ place, undo }, use) => use(makeStore(join(place, 'layers'), undo)),
  run: async ({ place, undo }, use) => {
    undo(() => sh('findmnt -rno TARGET | grep "^$PWD/" | tac | xargs -rd "\\n" -n1 umount', place));
    await use((script) => void sh(script, place));
  },
  start: async ({ place }, use) => {
    const started: StartedProcess[] = [];
    await use(async (script, ...options) => {
      const text = `cd "$0"; set -e; ${script}; echo ready; read line`;
      const process = await startProcess('ready', 'unshare', [...options, 'bash', '-c', text, place]);
      started.push(process);
      return process;
    });
    for (const process of started) await process.kill();
  },
});

async function mountOverlay(
  { fs }: Pick<Store, 'fs'>,
  ids: readonly number[],
  target: string,
  by?: MountMethod,
): Promise<void> {
  const lowers = ids.map((id) => fs(id).replaceAll(/[\\:,]/g, '\\$&')).join(':');
  await mount(
    [{ type: 'overlay', source: 'overlay', options: [`lowerdir=${lowers}`] }],
    target,
    by && { by },
  );
}

describe.skipIf(lacking)(`the mounts of a store${lacking}`, () => {
  test('nothing uses a directory that is not mounted', async ({ layers }) => {
    expect(await layers.use(1)).toBeUndefined();
    expect(await layers.mounts.findOwn('1')).toBeUndefined();
    expect(layers.mounts.findOwnNow('1')).toBeUndefined();
  });

  const binds: readonly [string, string][] = [
    ['its directory', 'layers/snapshots/1'],
    ['its layer', 'layers/snapshots/1/fs'],
    ['a part of its layer', 'layers/snapshots/1/fs/d'],
  ];
  test.for(binds)('a bind mount of %s uses it', async ([, source], { layers, target, run }) => {
    run(`mount --bind ${source} target`);
    const what = `it is mounted at "${target}"`;
    expect(await layers.use(1)).toEqual({ what, certain: true });
    expect(await layers.mounts.findOwn('1')).toBe(what);
    expect(layers.mounts.findOwnNow('1')).toBe(what);
    expect(await layers.use(12)).toBeUndefined();
    run('umount target');
    expect(layers.mounts.findOwnNow('1')).toBeUndefined();
  });

  test('a bind mount of all directories uses none', async ({ layers, target: _target, run }) => {
    run('mount --bind layers/snapshots target');
    expect(await layers.use(1)).toBeUndefined();
    run('umount target; mount --bind layers target');
    expect(await layers.use(1)).toBeUndefined();
  });

  test.for(['layers', 'target'])(
    'a mount in a layer, made by way of %s, uses it',
    async (way, { place, layers, target: _target, run }) => {
      run(`mount --bind layers target; mount -t tmpfs none ${way}/snapshots/1/fs/d`);
      const what = `"${join(place, way, 'snapshots/1/fs/d')}" is a mount point`;
      expect(await layers.use(1)).toEqual({ what, certain: true });
      expect(await layers.use(2)).toBeUndefined();
      expect(await layers.mounts.mountPoints()).toMatchObject([{ below: '1/fs/d' }]);
    },
  );

  test('a bind mount of what is in the store uses it, if the store is on a filesystem of its own', async ({
    place,
    target,
    run,
    undo,
  }) => {
    run('mkdir disk; mount -t tmpfs none disk; mkdir disk/a; mount --bind disk/a disk');
    const { use } = makeStore(join(place, 'disk', 'layers'), undo);
    run('mount --bind disk/layers/snapshots/2/fs target');
    expect(await use(2)).toEqual({ what: `it is mounted at "${target}"`, certain: true });
    expect(await use(1)).toBeUndefined();
  });

  test.for(methodsHere)(
    'an overlay that was mounted by %s uses its layers',
    async (by, { layers, target, run: _undone }) => {
      await mountOverlay(layers, [1, 2], target, by);
      const use = { what: `the overlay at "${target}" uses it`, certain: true };
      expect(await layers.use(1)).toEqual(use);
      expect(await layers.use(2)).toEqual(use);
      expect(await layers.use(12)).toBeUndefined();
      expect((await layers.mounts.survey()).overlays).toEqual(
        expect.arrayContaining([1, 2].map((id) => ({ id, mountPoint: target, where: `"${target}"` }))),
      );
      expect(await layers.mounts.isMountOf(target)).toBe(true);
    },
  );

  test.for(['a:b', 'a,b', 'a\\b', 'a b\nc'])(
    'an overlay uses its layers below a directory called %j',
    async (name, { place, target, run: _undone, undo }) => {
      const store = makeStore(join(place, name), undo);
      await mountOverlay(store, [1, 2], target, 'mount(2)');
      expect((await store.use(2))?.certain).toBe(true);
      expect(await store.use(3)).toBeUndefined();
      expect(await store.mounts.isMountOf(target)).toBe(true);
    },
  );

  const ways: readonly [string, string, (store: Store, place: string) => string][] = [
    [
      'a bind mount of the root',
      'mkdir way; mount --bind layers way',
      (_, place) => join(place, 'way/snapshots/1/fs'),
    ],
    [
      'a bind mount of its directory',
      'mkdir way; mount --bind layers/snapshots/1 way',
      (_, place) => join(place, 'way/fs'),
    ],
    ['a symbolic link to the root', 'ln -s layers way', (_, place) => join(place, 'way/snapshots/1/fs')],
    ['a symbolic link to the layer', 'ln -s layers/snapshots/1/fs way', (_, place) => join(place, 'way')],
  ];
  test.for(ways)(
    'an overlay that names its layers by way of %s uses them',
    async ([, script, path], { place, layers, target: _target, run }) => {
      run(script);
      const way = path(layers, place);
      run(`mount -t overlay overlay -o "lowerdir=${way}:${layers.fs(2)}" target`);
      expect((await layers.use(1))?.certain).toBe(true);
      expect((await layers.use(2))?.certain).toBe(true);
    },
  );

  const fake = `
    mount -t tmpfs none layers; mkdir -p layers/snapshots/{1,2}/fs m
    mount -t overlay overlay -o "lowerdir=$PWD/layers/snapshots/1/fs:$PWD/layers/snapshots/2/fs" m`;

  test('an overlay with layers at the same paths of another filesystem does not use them', async ({
    layers,
    start,
  }) => {
    await start(fake, '--mount');
    expect(await layers.use(1)).toBeUndefined();
    expect((await layers.mounts.survey()).overlays).toEqual([]);
  });

  test('an overlay in a namespace of a user does not count, whatever it names', async ({ layers, start }) => {
    await start(fake, '--user', '--map-root-user', '--mount');
    await start(
      `mkdir n; mount --bind layers/snapshots/3 n; mkdir o
       mount -t overlay overlay -o "lowerdir=$PWD/layers/snapshots/1/fs:$PWD/layers/snapshots/2/fs" o`,
      '--user',
      '--map-root-user',
      '--mount',
    );
    for (const id of [1, 2, 3]) expect(await layers.use(id)).toBeUndefined();
  });

  test('an overlay in another namespace uses its layers', async ({ place, layers, start }) => {
    const overlay =
      'mount -t overlay overlay -o "lowerdir=$PWD/layers/snapshots/1/fs:$PWD/layers/snapshots/2/fs" m';
    await start(`mkdir m; ${overlay}`, '--mount');
    const what = `the overlay at "${join(place, 'm')}" in another mount namespace uses it`;
    expect(await layers.use(1)).toEqual({ what, certain: true });
    expect(await layers.use(3)).toBeUndefined();
  });

  test('an overlay whose process has it as its root directory may use its layers', async ({
    layers,
    start,
  }) => {
    const overlay =
      'mount -t overlay overlay -o "lowerdir=$PWD/layers/snapshots/1/fs:$PWD/layers/snapshots/2/fs" m';
    const shell = 'cp "$(command -v busybox)" layers/snapshots/1/fs/sh';
    await start(`${shell}; mkdir m; ${overlay}; exec chroot m /sh -c "echo ready; read line"`, '--mount');
    const what =
      'the overlay at "/" in another mount namespace, whose layers are not found there, may use it';
    expect(await layers.use(1)).toEqual({ what, certain: false });
    expect(await layers.use(3)).toBeUndefined();
  });

  test('an overlay that names its layers by relative paths may use them', async ({ target, layers, run }) => {
    run('mkdir -p other/{1,2,7}/fs; cd other; mount -t overlay overlay -o lowerdir=1/fs:2/fs:7/fs ../target');
    const what = `the overlay at "${target}", which names its layers by relative paths, may use it`;
    expect(await layers.use(1)).toEqual({ what, certain: false });
    expect(await layers.use(2)).toEqual({ what, certain: false });
    expect(await layers.use(12)).toBeUndefined();
    expect(await layers.mounts.findOwn('1')).toBeUndefined();
    expect(await layers.mounts.isMountOf(target)).toBe(false);
    run(
      'umount target; cd layers; mount -t overlay overlay -o lowerdir=snapshots/3/fs:snapshots/4/fs ../target',
    );
    expect(await layers.use(1)).toBeUndefined();
    expect((await layers.use(3))?.certain).toBe(false);
  });

  test('isMountOf() says whether the mount on a directory is of the store', async ({
    layers,
    target,
    run,
  }) => {
    expect(await layers.mounts.isMountOf(target)).toBe(false);
    run('mount --bind layers/snapshots/1/fs target');
    expect(await layers.mounts.isMountOf(target)).toBe(true);
    run('mount -t tmpfs none target');
    expect(await layers.mounts.isMountOf(target)).toBe(false);
    run(
      'umount target; umount target; mkdir -p o/{a,b}; mount -t overlay overlay -o lowerdir=o/a:o/b target',
    );
    expect(await layers.mounts.isMountOf(target)).toBe(false);
    await expect(layers.mounts.isMountOf(`${target}/missing`)).rejects.toThrow(/ENOENT/);
  });
});

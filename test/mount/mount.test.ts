import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { ownMounts } from '../../src/linux/mountinfo.ts';
import { type MountMethod, mount, openMount, unmount, withMount } from '../../src/mount/index.ts';
import type { Mount } from '../../src/snapshot.ts';
import { isRoot } from '../support/needs.ts';
import { assertWhole, makeRoot } from '../support/store.ts';
import { sh } from '../support/tree.ts';

const methods: readonly MountMethod[] = ['descriptors', 'strings', 'mount(2)', 'mount(8)'];
const needs = isRoot ? '' : ' (needs root)';

let store: ReturnType<typeof makeRoot>;
let root: string;
let target: string;
beforeEach(() => {
  store = makeRoot();
  root = join(store.root, 'store');
  target = join(store.root, 'target');
  mkdirSync(target);
});
afterEach(() => {
  const left = ownMounts().entries.filter(({ mountPoint }) => mountPoint.startsWith(store.root));
  for (const { mountPoint } of left.toReversed()) execFileSync('umount', ['-l', mountPoint]);
  try {
    if (existsSync(join(root, 'metadata.db'))) assertWhole(root);
    expect(left).toEqual([]);
  } finally {
    store.remove();
  }
});

/** Commits so many layers on one another, each with a file of its number and a share in another, and opens one on top. */
async function stack(driver: OverlayDriver, depth: number): Promise<Mount[]> {
  let parent: string | undefined;
  for (let number = 1; number <= depth; number += 1) {
    await driver.prepare(`k${number}`, parent);
    const { directory } = await driver.stat(`k${number}`);
    writeFileSync(`${directory}/fs/own-${number}`, `${number}`);
    writeFileSync(`${directory}/fs/shared`, `${number}`);
    parent = `layer-${number}`;
    await driver.commit(parent, `k${number}`);
  }
  return driver.prepare('top', parent);
}

const isMounted = (): boolean => ownMounts().entries.some(({ mountPoint }) => mountPoint === target);

describe.skipIf(!isRoot).each(methods)(`a mount by %s${needs}`, (by) => {
  const odd = [
    'a b',
    'a:b',
    'a,b',
    'a\\b',
    'a\\:b,',
    'line\nbreak',
    'tab\tbed',
    'é\u{1F600}',
    'q\'"uote',
    '%s#',
  ];
  test.each(odd)('of a store at %j', async (name) => {
    root = join(store.root, name);
    await using driver = await OverlayDriver.open(root, { durability: 'metadata' });
    await mount(await stack(driver, 3), target, { by });
    expect(sh('cat own-1 own-3 shared; rm own-2; echo new > shared; ls', target)).toBe(
      '133own-1\nown-3\nshared\n',
    );
    await unmount(target);
    const { directory } = await driver.stat('top');
    expect(readFileSync(`${directory}/fs/shared`, 'utf8')).toBe('new\n');
    expect(statSync(`${directory}/fs/own-2`).isCharacterDevice()).toBe(true);
    await mount(await driver.mounts('top'), target, { by });
    // Found in mountinfo, however its paths are written there.
    expect((await driver.remove('top')).deferred).toMatch(/uses it/);
    await unmount(target);
    expect((await driver.cleanup()).deferred).toEqual([]);
    await mount(await driver.view('v', 'layer-2'), target, { by });
    expect(readFileSync(join(target, 'shared'), 'utf8')).toBe('2');
    expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
    await unmount(target);
  });

  test('of 500 layers reads right, or is refused where the kernel would cut its options off', async () => {
    await using driver = await OverlayDriver.open(root, { durability: 'metadata' });
    const mounts = await stack(driver, 500);
    if (by === 'mount(2)') {
      await expect(mount(mounts, target, { by })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
      expect(isMounted()).toBe(false);
      return;
    }
    await mount(mounts, target, { by });
    expect(readdirSync(target)).toHaveLength(501);
    for (const number of [1, 250, 499, 500]) {
      expect(readFileSync(join(target, `own-${number}`), 'utf8')).toBe(`${number}`);
    }
    expect(readFileSync(join(target, 'shared'), 'utf8')).toBe('500');
    await unmount(target);
  });

  test('of 501 layers is refused before the kernel is asked', async () => {
    const lowerdir = `lowerdir=${Array.from({ length: 501 }, (_, i) => `/nowhere/${i}`).join(':')}`;
    const mounts: Mount[] = [{ type: 'overlay', source: 'overlay', options: [lowerdir] }];
    await expect(mount(mounts, target, { by })).rejects.toThrow(/501 layers/);
  });

  test('that came up read-only, since its work directory is in the way, is undone and an error', async () => {
    await using driver = await OverlayDriver.open(root, { durability: 'metadata' });
    const mounts = await stack(driver, 1);
    const { directory } = await driver.stat('top');
    mkdirSync(join(directory ?? '', 'work', 'work', 'a/b/c/d/e'), { recursive: true });
    await expect(mount(mounts, target, { by })).rejects.toThrow(/can only be read/);
    expect(isMounted()).toBe(false);
  });

  test('of a layer that is missing says which', async () => {
    await using driver = await OverlayDriver.open(root, { durability: 'metadata' });
    const mounts = await stack(driver, 3);
    const { directory } = await driver.stat('layer-2');
    sh('mv fs gone', directory ?? '');
    const error = { code: 'DATA_LOSS', message: expect.stringContaining(`${directory}/fs`) as string };
    await expect(mount(mounts, target, { by })).rejects.toMatchObject(error);
    expect(isMounted()).toBe(false);
    sh('mv gone fs', directory ?? '');
  });

  test('that the kernel refuses says so in its own words, and leaves nothing', async () => {
    await using driver = await OverlayDriver.open(root, {
      durability: 'metadata',
      mountOptions: ['no_such_option=1'],
    });
    const mounts = await stack(driver, 1);
    const words = by === 'descriptors' || by === 'strings' ? /no_such_option/ : /EINVAL|wrong fs type/;
    await expect(mount(mounts, target, { by })).rejects.toThrow(words);
    expect(isMounted()).toBe(false);
    const [overlay] = mounts;
    // The first of two is undone when the second fails.
    const two: Mount[] = [{ type: 'bind', source: root, options: ['rw'] }, overlay as Mount];
    await expect(mount(two, target, { by })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(isMounted()).toBe(false);
  });

  test('takes the attributes of mounts', async () => {
    await using driver = await OverlayDriver.open(root, {
      durability: 'metadata',
      mountOptions: ['nosuid', 'nodev', 'noexec', 'noatime'],
    });
    await mount(await stack(driver, 2), target, { by });
    const line = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((text) => text.includes(` ${target} `));
    expect(line).toMatch(/ rw,nosuid,nodev,noexec,noatime /);
    await unmount(target);
  });
});

describe.skipIf(!isRoot)(`by mount(2)${needs}`, () => {
  test.each([4094, 4095, 4096, 4097, 4200])(
    'options of %i bytes mount the right layers or none',
    async (bytes) => {
      const path = (name: string): string => join(store.root, name.padStart(120, 'x'));
      const count = Math.floor((bytes - 70 - store.root.length) / (path('').length + 1));
      const all = Array.from({ length: count }, (_, i) => path(`${i}`));
      const whole = `lowerdir=${all.join(':')}`.length;
      const last = join(store.root, 'z'.repeat(bytes - whole - 2 - store.root.length));
      for (const layer of [...all, last]) mkdirSync(layer, { recursive: true });
      writeFileSync(join(last, 'seen'), '');
      // The layer that would be mounted in its place if one byte were cut off.
      if (bytes > 4095) mkdirSync(last.slice(0, last.length - (bytes - 4095)), { recursive: true });
      const options = [`lowerdir=${[...all, last].join(':')}`];
      expect(options.join().length).toBe(bytes);
      const mounting = mount([{ type: 'overlay', source: 'overlay', options }], target, { by: 'mount(2)' });
      if (bytes > 4095) {
        await expect(mounting).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
        return;
      }
      await mounting;
      expect(readdirSync(target)).toEqual(['seen']);
      await unmount(target);
    },
  );
});

describe.skipIf(!isRoot)(`a bind${needs}`, () => {
  test('of a view is read-only, with what is mounted below it', async () => {
    await using driver = await OverlayDriver.open(root);
    await driver.prepare('k');
    const { directory } = await driver.stat('k');
    mkdirSync(`${directory}/fs/below`);
    await driver.commit('base', 'k');
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', `${directory}/fs/below`]);
    try {
      await mount(await driver.view('v', 'base'), target);
      expect(() => writeFileSync(join(target, 'x'), '')).toThrow(/EROFS/);
      expect(() => writeFileSync(join(target, 'below/x'), '')).toThrow(/EROFS/);
      writeFileSync(`${directory}/fs/below/x`, '');
      expect(existsSync(join(target, 'below/x'))).toBe(true);
      await unmount(join(target, 'below'));
      await unmount(target);
    } finally {
      execFileSync('umount', [`${directory}/fs/below`]);
    }
  });

  test('of a base can be written to', async () => {
    await using driver = await OverlayDriver.open(root);
    await mount(await driver.prepare('k'), target);
    writeFileSync(join(target, 'file'), 'x');
    await unmount(target);
    expect(readFileSync(`${(await driver.stat('k')).directory}/fs/file`, 'utf8')).toBe('x');
  });
});

describe.skipIf(!isRoot)(`ids are mapped${needs}`, () => {
  test('of an overlay and of a bind', async () => {
    await using driver = await OverlayDriver.open(root, { remapIds: true });
    await driver.prepare('k');
    writeFileSync(`${(await driver.stat('k')).directory}/fs/of-root`, '');
    await driver.commit('base', 'k');
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:100000:65536',
      'containerd.io/snapshot/gidmapping': '0:200000:65536',
    };
    await mount(await driver.prepare('mapped', 'base', { labels }), target);
    expect(statSync(join(target, 'of-root'))).toMatchObject({ uid: 100000, gid: 200000 });
    expect(statSync(target)).toMatchObject({ uid: 100000, gid: 200000 });
    await unmount(target);
    await mount(await driver.view('v', 'base', { labels }), target);
    expect(statSync(join(target, 'of-root'))).toMatchObject({ uid: 100000, gid: 200000 });
    await unmount(target);
    for (const by of ['mount(2)', 'mount(8)'] as const) {
      await expect(mount(await driver.mounts('mapped'), target, { by })).rejects.toMatchObject({
        code: 'UNIMPLEMENTED',
      });
    }
  });
});

describe.skipIf(!isRoot)(`what cannot be mounted on${needs}`, () => {
  let driver: OverlayDriver;
  let mounts: Mount[];
  beforeEach(async () => {
    driver = await OverlayDriver.open(root);
    mounts = await stack(driver, 1);
  });
  afterEach(() => driver.close());
  const refuses = async (path: string): Promise<void> => {
    await expect(mount(mounts, path)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  };

  test('nothing, a file, a symbolic link, a mount', async () => {
    await refuses(join(store.root, 'missing'));
    writeFileSync(join(store.root, 'file'), '');
    await refuses(join(store.root, 'file'));
    symlinkSync(target, join(store.root, 'link'));
    await refuses(join(store.root, 'link'));
    await mount(mounts, target);
    await refuses(target);
    await unmount(target);
  });

  test('wrong arguments', async () => {
    await expect(mount(mounts, '')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(mount(mounts, 'a\0b')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(mount(mounts, 7 as unknown as string)).rejects.toThrow(TypeError);
    await expect(mount('mounts' as unknown as Mount[], target)).rejects.toThrow(TypeError);
    const strange = { type: 'tmpfs', source: 'tmpfs', options: [] } as unknown as Mount;
    await expect(mount([strange], target)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const nul: Mount = { type: 'overlay', source: 'overlay', options: ['a\0b'] };
    await expect(mount([nul], target)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(withMount(mounts, undefined as unknown as () => void)).rejects.toThrow(TypeError);
  });
});

describe.skipIf(!isRoot)(`unmount${needs}`, () => {
  test('of what is no mount', async () => {
    const code = { code: 'FAILED_PRECONDITION' };
    await expect(unmount(target)).rejects.toMatchObject(code);
    await expect(unmount(join(store.root, 'missing'))).rejects.toMatchObject(code);
  });

  test('of what is in use waits, then fails, and can be lazy', async () => {
    await using driver = await OverlayDriver.open(root);
    await mount(await stack(driver, 1), target);
    const fd = openSync(join(target, 'file'), 'w');
    await expect(unmount(target)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION', message: /EBUSY/ });
    expect(isMounted()).toBe(true);
    await unmount(target, { lazy: true });
    expect(isMounted()).toBe(false);
    // It lives on in the open file, and so is not deleted.
    expect((await driver.remove('top')).deferred).toMatch(/uses it/);
    closeSync(fd);
    expect((await driver.cleanup()).deferred).toEqual([]);
  });
});

describe.skipIf(!isRoot)(`a temporary mount${needs}`, () => {
  test('is undone whatever happens, and gives what the function gave', async () => {
    await using driver = await OverlayDriver.open(root);
    const mounts = await stack(driver, 2);
    let seen = '';
    const result = await withMount(mounts, async (path) => {
      seen = path;
      return readFileSync(join(path, 'shared'), 'utf8');
    });
    expect(result).toBe('2');
    expect(seen.startsWith(tmpdir())).toBe(true);
    expect(existsSync(seen)).toBe(false);
    const failing = withMount(mounts, (path) => {
      seen = path;
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(existsSync(seen)).toBe(false);
    const fd = await withMount(mounts, (path) => openSync(join(path, 'kept-open'), 'w'));
    closeSync(fd);
  });
});

describe.skipIf(!isRoot).each(['descriptors', 'strings'] as const)(`a detached mount by %s${needs}`, (by) => {
  test('is used through its descriptor, and is in no mount table', async () => {
    await using driver = await OverlayDriver.open(root);
    const mounts = await stack(driver, 2);
    const before = readFileSync('/proc/self/mountinfo', 'utf8');
    const detached = await openMount(mounts, { by });
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).toBe(before);
    writeFileSync(`${detached.path}/new`, 'x');
    expect(execFileSync('cat', ['shared'], { cwd: detached.path, encoding: 'utf8' })).toBe('2');
    expect((await driver.remove('top')).deferred).toMatch(/uses it/);
    await detached.close();
    await detached.close();
    expect((await driver.cleanup()).deferred).toEqual([]);
  });
});

test.skipIf(!isRoot)(`a detached mount is gone when its process is killed${needs}`, async () => {
  await using driver = await OverlayDriver.open(root);
  const mounts = await stack(driver, 2);
  const script = `
    import { openMount } from '${new URL('../../dist/mount/index.js', import.meta.url).href}';
    const detached = await openMount(${JSON.stringify(mounts)});
    console.log(detached.path);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  expect((await driver.remove('top')).deferred).toMatch(/uses it/);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
  expect((await driver.cleanup()).deferred).toEqual([]);
});

test.skipIf(!isRoot)(`what cannot be detached says so${needs}`, async () => {
  await using driver = await OverlayDriver.open(root);
  const mounts = await stack(driver, 1);
  await expect(openMount(mounts, { by: 'mount(2)' })).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
  await expect(openMount([...mounts, ...mounts])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(openMount([])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test.skipIf(!isRoot)(`one who may not mount is told so${needs}`, async () => {
  const script = `
    import { mount } from '${new URL('../../dist/mount/index.js', import.meta.url).href}';
    const error = await mount([{ type: 'bind', source: '/tmp', options: ['rbind'] }], '${target}').catch((reason) => reason);
    console.log(JSON.stringify({ code: error.code, hint: error.hint }));`;
  sh('chmod 755 . target', store.root);
  rmSync(root, { recursive: true, force: true });
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    uid: 65534,
    gid: 65534,
    encoding: 'utf8',
  });
  expect(JSON.parse(out)).toMatchObject({
    code: 'PERMISSION_DENIED',
    hint: expect.stringContaining('root') as string,
  });
});

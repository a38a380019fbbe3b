import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { makeDisk } from '../support/disk.ts';
import { isRoot } from '../support/needs.ts';
import { mustRun } from '../support/shell.ts';
import { assertWhole, makeRoot } from '../support/store.ts';
import { missing, sh } from '../support/tree.ts';

const needs = isRoot ? '' : ' (needs root)';

let store: ReturnType<typeof makeRoot>;
let root: string;
let target: string;
let driver: OverlayDriver;
beforeEach(async () => {
  store = makeRoot();
  root = join(store.root, 'store');
  target = join(store.root, 'target');
  mkdirSync(target);
  driver = await OverlayDriver.open(root);
});
afterEach(async () => {
  await driver.close();
  try {
    assertWhole(root);
  } finally {
    store.remove();
  }
});

async function makeBase(): Promise<void> {
  await driver.prepare('making base');
  sh('echo base > file', `${(await driver.stat('making base')).directory}/fs`);
  await driver.commit('base', 'making base');
}

describe.skipIf(!isRoot)(`the driver mounts${needs}`, () => {
  test('what is active, a view, and a base in work', async () => {
    await driver.prepare('k');
    await driver.mount('k', target);
    writeFileSync(join(target, 'file'), 'x');
    await driver.unmount(target);
    await driver.commit('base', 'k');
    await driver.prepare('l', 'base');
    await driver.mount('l', target, { by: 'strings' });
    expect(readFileSync(join(target, 'file'), 'utf8')).toBe('x');
    await driver.unmount(target);
    await driver.view('v', 'base');
    await driver.mount('v', target);
    expect(() => writeFileSync(join(target, 'file'), '')).toThrow(/EROFS/);
    await driver.unmount(target);
  });

  test('nothing that is committed or missing, or of which a layer is', async () => {
    await makeBase();
    await expect(driver.mount('base', target)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(driver.mount('missing', target)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await driver.prepare('k', 'base');
    const { directory } = await driver.stat('base');
    sh('mv fs away', directory ?? '');
    await expect(driver.mount('k', target)).rejects.toMatchObject({ code: 'DATA_LOSS' });
    sh('mv away fs', directory ?? '');
  });

  test('no layer twice that is written to, which would ruin it', async () => {
    await makeBase();
    await driver.prepare('k', 'base');
    await driver.mount('k', target);
    const second = join(store.root, 'second');
    mkdirSync(second);
    await expect(driver.mount('k', second)).rejects.toThrow(/mounted already/);
    await driver.unmount(target);
    await driver.mount('k', second);
    await driver.unmount(second);
  });

  test('no layer twice either when both begin at the same time, in two drivers', async () => {
    await makeBase();
    await driver.prepare('k', 'base');
    await using other = await OverlayDriver.open(root);
    const targets = Array.from({ length: 8 }, (_, i) => join(store.root, `t${i}`));
    for (const path of targets) mkdirSync(path);
    const outcomes = await Promise.allSettled(
      targets.map((path, i) => (i % 2 === 0 ? driver : other).mount('k', path)),
    );
    const mounted = targets.filter((_, i) => outcomes[i]?.status === 'fulfilled');
    expect(mounted).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected')
        expect(outcome.reason).toMatchObject({ code: 'FAILED_PRECONDITION' });
    }
    for (const path of mounted) await driver.unmount(path);
  });

  test('and unmounts nothing that is not of this store', async () => {
    const refused = { code: 'FAILED_PRECONDITION' };
    await expect(driver.unmount(target)).rejects.toMatchObject(refused);
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', target]);
    try {
      await expect(driver.unmount(target)).rejects.toMatchObject(refused);
    } finally {
      execFileSync('umount', [target]);
    }
    await using other = await OverlayDriver.open(join(store.root, 'other'));
    await other.prepare('k');
    await other.mount('k', target);
    await expect(driver.unmount(target)).rejects.toMatchObject(refused);
    await other.unmount(target);
    await expect(driver.unmount(7 as unknown as string)).rejects.toThrow(TypeError);
  });
});

describe.skipIf(!isRoot)(`a volatile snapshot${needs}`, () => {
  beforeEach(async () => {
    await makeBase();
    await driver.prepare('k', 'base', { volatile: true });
  });

  const pretendReboot = (): void => {
    // Another boot is what the database says, since this machine cannot be started anew for a test.
    mustRun(
      join(root, 'metadata.db'),
      `update snapshot set volatile_boot = 'an earlier one' where name = 'k';`,
    );
  };

  test('is one until it is committed, and its mounts say so', async () => {
    expect((await driver.stat('k')).volatile).toBe(true);
    expect((await driver.mounts('k'))[0]?.options).toContain('volatile');
    expect((await driver.prepare('l', 'base'))[0]?.options).not.toContain('volatile');
    expect((await driver.commit('n', 'k')).volatile).toBe(false);
    expect((await driver.stat('l')).volatile).toBe(false);
    const wrong = { volatile: 'yes' as unknown as boolean };
    await expect(driver.prepare('x', 'base', wrong)).rejects.toThrow(TypeError);
    await expect(driver.view('x', 'base', { volatile: true } as {})).rejects.toThrow(TypeError);
    await driver.transaction((tx) => tx.prepare('in one', 'base', { volatile: true }));
    expect((await driver.stat('in one')).volatile).toBe(true);
  });

  test('is mounted again and again in one boot, over the mark that overlayfs leaves', async () => {
    for (let i = 1; i <= 3; i += 1) {
      await driver.mount('k', target);
      const { directory } = await driver.stat('k');
      expect(existsSync(join(directory ?? '', 'work', 'work', 'incompat', 'volatile'))).toBe(true);
      sh(`echo ${i} >> log`, target);
      await driver.unmount(target);
    }
    const { directory } = await driver.commit('n', 'k');
    expect(readFileSync(`${directory}/fs/log`, 'utf8')).toBe('1\n2\n3\n');
    await driver.cleanup();
    expect(existsSync(`${directory}/work`)).toBe(false);
  });

  test('that was mounted before the machine was started anew is lost', async () => {
    await driver.mount('k', target);
    await driver.unmount(target);
    pretendReboot();
    const lost = { code: 'DATA_LOSS' };
    await expect(driver.mount('k', target)).rejects.toMatchObject(lost);
    await expect(driver.commit('n', 'k')).rejects.toMatchObject(lost);
    await expect(driver.checkpoint('n', 'k')).rejects.toMatchObject(lost);
    await expect(driver.seal('k')).rejects.toMatchObject(lost);
    expect((await driver.stat('k')).kind).toBe('active');
    await driver.remove('k');
  });

  test('that was never mounted before that is as good as new', async () => {
    pretendReboot();
    await driver.mount('k', target);
    sh('echo new > file', target);
    await driver.unmount(target);
    await driver.mount('k', target);
    await driver.unmount(target);
    await driver.commit('n', 'k');
  });

  test('cannot be made one, or be made none, in the shell', () => {
    const change = (to: string, where: string) => (): string =>
      mustRun(
        join(root, 'metadata.db'),
        `update snapshot set volatile_boot = ${to} where name = '${where}';`,
      );
    expect(change('null', 'k')).toThrow(/volatile/);
    expect(change("'x'", 'base')).toThrow(/volatile|CHECK/);
  });
});

describe.skipIf(!isRoot)(`a root is refused on a filesystem that overlayfs cannot use${needs}`, () => {
  test('such as an overlay', async () => {
    await makeBase();
    await driver.prepare('k', 'base');
    await driver.mount('k', target);
    sh('mkdir root && chmod 700 root', target);
    await expect(OverlayDriver.open(join(target, 'root'))).rejects.toThrow(/overlayfs/);
    await driver.unmount(target);
  });

  const lacking = missing('mkfs.ext4').length > 0 ? ' (needs mkfs.ext4)' : '';
  test.skipIf(lacking !== '')(`such as one that does not tell the types of files${lacking}`, async () => {
    const disk = makeDisk('ext4', 32, { options: ['-O', '^filetype'] });
    try {
      await expect(OverlayDriver.open(disk.root)).rejects.toMatchObject({
        code: 'FAILED_PRECONDITION',
        message: expect.stringContaining('types of files') as string,
        hint: expect.stringContaining('filetype') as string,
      });
    } finally {
      disk.remove();
    }
  });
});

test.skipIf(!isRoot)(`the whole contract holds for an ordinary user in a user namespace${needs}`, () => {
  const script = fileURLToPath(new URL('../support/rootless-conformance.mjs', import.meta.url));
  sh('chown 65534:65534 .', store.root);
  const ids = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  const args = [...ids, 'unshare', '-Urm', process.execPath, script, store.root];
  const out = execFileSync('setpriv', args, { encoding: 'utf8' });
  const { passed, failed } = JSON.parse(out) as { passed: number; failed: string[] };
  expect(failed).toEqual([]);
  expect(passed).toBeGreaterThan(30);
});

import { join } from 'node:path';
import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { OverlayDriver } from '../../../src/index.ts';
import { type Example, breakRules } from '../../support/damage.ts';
import { test as base } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';
import { type StartedProcess, startProcess } from '../../support/process.ts';

/** Mounts a snapshot of the example in a mount namespace of its own, until the test ends. */
const test = base.extend<{ mountElsewhere: (key: string) => Promise<StartedProcess> }>({
  mountElsewhere: async ({ example, target, undo }, use) => {
    await use(async (key) => {
      const [mount] = await mountsOf(example, key);
      const script = 'mount -t "$1" "$2" "$3" -o "$4" && echo mounted && exec cat';
      const args = [mount?.type ?? '', mount?.source ?? '', target, mount?.options.join(',') ?? ''];
      const holder = await startProcess('mounted', 'unshare', ['--mount', 'sh', '-c', script, 'sh', ...args]);
      undo(() => holder.kill());
      return holder;
    });
  },
});

async function mountsOf({ root }: Example, key: string): ReturnType<OverlayDriver['mounts']> {
  await using driver = await OverlayDriver.open(root, { backups: false });
  return await driver.mounts(key);
}

const lacking = needs('root', 'sqlite3', 'unshare');

describe.skipIf(lacking)(`checks of mounts${lacking}`, () => {
  test('check finds a mount of a damaged layer in another mount namespace', async ({
    example,
    examiner,
    target,
    mountElsewhere,
  }) => {
    const holder = await mountElsewhere('work');
    writeFileSync(example.at('snapshots', example.ids.base, 'fs', 'added'), '');
    const { findings } = await examiner.check(example.root);
    expect(findings).toMatchObject([
      { code: 'seal-broken', snapshot: 'base' },
      {
        code: 'mount-of-damaged',
        snapshot: 'base',
        path: target,
        message: expect.stringContaining(`"${target}" in another mount namespace`) as string,
      },
    ]);
    await holder.finish();
    expect((await examiner.check(example.root)).findings).toMatchObject([{ code: 'seal-broken' }]);
  });

  test('check finds one mount of a snapshot that is gone once for each of its layers', async ({
    example,
    examiner,
    mountElsewhere,
  }) => {
    await mountElsewhere('work');
    const { root, ids } = example;
    breakRules(
      root,
      `delete from label;
       delete from snapshot where id in (${ids.work}, ${ids.reader}, ${ids.app});
       insert into removal values (${ids.work}, 'all', 'deleting');`,
    );
    const { findings } = await examiner.check(root, { only: ['mounts'] });
    expect(findings.map(({ code, id }) => `${code} ${id}`).toSorted()).toEqual([
      `mount-of-removed ${ids.work}`,
      `mount-of-unknown ${ids.app}`,
    ]);
  });

  test('check says nothing about mounts of whole snapshots, or of layers elsewhere', async ({
    example,
    examiner,
    place,
    target,
    mountElsewhere,
    undo,
  }) => {
    await mountElsewhere('work');
    const other = join(place, 'other');
    for (const part of ['snapshots/4711/fs', 'snapshots/4711/work', 'lower']) {
      mkdirSync(join(other, part), { recursive: true });
    }
    const options = `lowerdir=${other}/lower,upperdir=${other}/snapshots/4711/fs,workdir=${other}/snapshots/4711/work`;
    const script = 'mount -t overlay overlay "$1" -o "$2" && echo mounted && exec cat';
    const holder = await startProcess('mounted', 'unshare', [
      '--mount',
      'sh',
      '-c',
      script,
      'sh',
      target,
      options,
    ]);
    undo(() => holder.kill());
    expect((await examiner.check(example.root)).findings).toEqual([]);
  });
});

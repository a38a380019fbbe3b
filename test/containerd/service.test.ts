import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { isRoot } from '../support/needs.ts';
import { useService } from '../support/service.ts';
import { failure } from '../support/snapshots-client.ts';

const needs = isRoot ? '' : ' (needs root)';

describe.skipIf(!isRoot)(`the snapshots service${needs}`, () => {
  const service = useService();

  test('Prepare, Commit, View, Mounts, Usage, Remove and Cleanup do what the driver does', async () => {
    const { client, driver } = service;
    const labels = { 'containerd.io/snapshot.ref': 'sha256:1', empty: '' };
    const { mounts } = await client.call('Prepare', { snapshotter: 'any', key: 'k', labels });
    expect(mounts).toEqual([
      {
        type: 'bind',
        source: join(service.root, 'snapshots/1/fs'),
        target: '',
        options: ['rw', 'rbind'],
      },
    ]);
    expect((await driver.stat('k')).labels).toEqual({ 'containerd.io/snapshot.ref': 'sha256:1' });
    writeFileSync(join(mounts[0]?.source ?? '', 'file'), 'x'.repeat(5000));
    expect(await client.call('Usage', { key: 'k' })).toMatchObject({ inodes: 2 });
    expect(await client.call('Commit', { name: 'n', key: 'k', labels: { of: 'n' } })).toEqual({});
    expect(await client.call('Usage', { key: 'n' })).toEqual(await driver.usage('n'));
    const view = await client.call('View', { key: 'v', parent: 'n', labels: { of: 'v' } });
    expect(view.mounts).toMatchObject([{ type: 'bind', options: ['ro', 'rbind'] }]);
    expect(await client.call('Mounts', { key: 'v' })).toEqual(view);
    expect(await client.call('Usage', { key: 'v' })).toEqual({ inodes: 0, size: 0 });
    const { mounts: stacked } = await client.call('Prepare', { key: 'k2', parent: 'n' });
    expect(stacked).toMatchObject([{ type: 'overlay', source: 'overlay' }]);
    for (const key of ['k2', 'v', 'n']) expect(await client.call('Remove', { key })).toEqual({});
    expect(await client.call('Cleanup', {})).toEqual({});
    expect(await client.names()).toEqual([]);
    expect(existsSync(join(service.root, 'snapshots/1'))).toBe(false);
    expect(await driver.pendingRemovals()).toBe(0);
  });

  test('a commit gives a parent to what has none', async () => {
    const { client } = service;
    await client.call('Prepare', { key: 'a' });
    await client.call('Commit', { name: 'base', key: 'a' });
    await client.call('Prepare', { key: 'b' });
    await client.call('Commit', { name: 'layer', key: 'b', parent: 'base' });
    expect((await client.call('Stat', { key: 'layer' })).info).toMatchObject({
      parent: 'base',
      kind: 'COMMITTED',
    });
    await client.call('Prepare', { key: 'c', parent: 'layer' });
    expect(await failure(client.call('Commit', { name: 'd', key: 'c', parent: 'base' }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('Stat and List tell the same, to the microsecond', async () => {
    const { client, driver } = service;
    await client
      .call('Prepare', { key: 'k', labels: { a: 'b', ['__proto__']: 'c', '': '' } })
      .catch(() => {});
    await client.call('Prepare', { key: 'k2', labels: { a: 'b', ['__proto__']: 'c' } });
    const { info } = await client.call('Stat', { key: 'k2' });
    expect(info).toMatchObject({ name: 'k2', parent: '', kind: 'ACTIVE' });
    expect(Object.entries(info.labels)).toEqual([
      ['__proto__', 'c'],
      ['a', 'b'],
    ]);
    const { createdUs } = await driver.stat('k2');
    expect((info.createdAt?.seconds ?? 0) * 1e6 + (info.createdAt?.nanos ?? 0) / 1000).toBe(createdUs);
    expect((await client.blocks('name==k2')).flat()).toEqual([info]);
    const { info: updated } = await client.call('Update', {
      info: { name: 'k2', labels: { d: 'e' } },
      updateMask: { paths: ['labels.d'] },
    });
    expect(updated.createdAt).toEqual(info.createdAt);
    expect((await client.blocks('labels.d==e')).flat()).toEqual([updated]);
  });

  test('Update changes labels, as far as the mask says', async () => {
    const { client } = service;
    await client.call('Prepare', { key: 'k', labels: { a: '1', b: '2' } });
    const labels = async (given: Record<string, string>, paths?: string[]): Promise<object> => {
      const updateMask = paths && { paths };
      const request = { info: { name: 'k', labels: given }, ...(updateMask && { updateMask }) };
      return (await client.call('Update', request)).info.labels;
    };
    expect(await labels({ c: '3', x: '4' }, ['labels.c'])).toEqual({ a: '1', b: '2', c: '3' });
    expect(await labels({ a: '' }, ['labels.a', 'labels.b'])).toEqual({ c: '3' });
    expect(await labels({ d: '5' }, ['labels'])).toEqual({ d: '5' });
    expect(await labels({ e: '6' })).toEqual({ e: '6' });
    expect(await labels({ f: '7' }, [])).toEqual({ f: '7' });
    expect(await labels({})).toEqual({});
    for (const path of ['name', 'parent', 'kind', 'created_at', 'labels.']) {
      expect(await failure(labels({}, [path]))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(await failure(client.call('Update', {}))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('List sends blocks of a hundred, or less where there is much to tell', async () => {
    const { client, driver } = service;
    expect(await client.blocks()).toEqual([]);
    await driver.transaction((tx) => {
      for (let i = 0; i < 250; i += 1) tx.view(`v${i}`);
      for (let i = 0; i < 10; i += 1) {
        const labels = Object.fromEntries(
          Array.from({ length: 100 }, (_, at) => [`k${at}`, 'x'.repeat(4000)]),
        );
        tx.prepare(`large ${i}`, null, { labels });
      }
    });
    const blocks = await client.blocks();
    expect(blocks.map(({ length }) => length)).toEqual([100, 100, 53, 3, 3, 1]);
    expect(blocks.flat().map(({ name }) => name)).toEqual([
      ...Array.from({ length: 250 }, (_, i) => `v${i}`),
      ...Array.from({ length: 10 }, (_, i) => `large ${i}`),
    ]);
    expect(await client.names('name==v7', 'name~="^large [89]$"')).toEqual(['v7', 'large 8', 'large 9']);
    expect(await failure(client.blocks('color==red'))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('errors carry their codes, and say what to do', async () => {
    const { client } = service;
    await client.call('Prepare', { key: 'k' });
    await client.call('Commit', { name: 'base', key: 'k' });
    await client.call('Prepare', { key: 'child', parent: 'base' });
    const failures = await Promise.all(
      [
        client.call('Prepare', { key: 'child' }),
        client.call('Prepare', { key: 'x', parent: 'nowhere' }),
        client.call('Prepare', { key: 'x', parent: 'child' }),
        client.call('Stat', { key: 'nowhere' }),
        client.call('Stat', {}),
        client.call('Mounts', { key: 'base' }),
        client.call('Remove', { key: 'base' }),
        client.call('Remove', { key: 'nowhere' }),
        client.call('Commit', { name: 'base', key: 'child' }),
        client.call('Stat', { key: 'a line\nand "more" % é' }),
      ].map(failure),
    );
    expect(failures.map(({ code, details }) => `${code}: ${details}`)).toEqual([
      'ALREADY_EXISTS: "child" is taken',
      'NOT_FOUND: there is no parent "nowhere"',
      'INVALID_ARGUMENT: the parent "child" is not committed but active',
      'NOT_FOUND: there is no snapshot "nowhere"',
      'INVALID_ARGUMENT: the key or name is empty',
      'FAILED_PRECONDITION: "base" is committed and has no mounts of its own (make a view of it)',
      expect.stringMatching(/^FAILED_PRECONDITION: cannot remove "base": .*"child"/),
      'NOT_FOUND: there is no snapshot "nowhere"',
      'ALREADY_EXISTS: "base" is taken',
      String.raw`NOT_FOUND: there is no snapshot "a line\nand \"more\" % é"`,
    ]);
  });

  test('Remove takes what is there under a name even if that changes its kind', async () => {
    const { client, driver } = service;
    const make = async (i: number): Promise<void> => {
      if (i % 2 === 0) {
        await driver.prepare('making');
        await driver.commit('name', 'making');
      } else {
        await driver.prepare('name');
      }
    };
    for (let i = 0; i < 20; i += 1) {
      await make(i);
      const removal = client.call('Remove', { key: 'name' });
      const swap = driver.transaction((tx) => {
        if (tx.stat('name').kind === 'committed') {
          tx.delete('name');
          tx.view('name');
        } else {
          tx.remove('name');
          tx.prepare('making');
          tx.commit('name', 'making');
        }
      });
      // If it is gone before it can be swapped, that is well too.
      await swap.catch((error: unknown) => expect(error).toMatchObject({ code: 'NOT_FOUND' }));
      expect(await removal).toEqual({});
      expect(await driver.exists('name')).toBe(false);
    }
  });

  test('what is removed goes from disk by itself', async () => {
    const { client, driver } = service;
    const { mounts } = await client.call('Prepare', { key: 'k' });
    const layer = mounts[0]?.source ?? '';
    mkdirSync(join(layer, 'a/b'), { recursive: true });
    await client.call('Remove', { key: 'k' });
    while (existsSync(layer)) await client.call('Stat', { key: 'k' }).catch(() => {});
    expect(await driver.exists('k')).toBe(false);
  });
});

describe.skipIf(!isRoot)(`the service with options${needs}`, () => {
  const service = useService({ driver: { remapIds: true }, serve: () => ({ name: 'overlite' }) });

  test('id-mapping labels become mount options, and cannot be anything else', async () => {
    const { client } = service;
    const snapshotter = 'overlite';
    await client.call('Prepare', { snapshotter, key: 'k' });
    await client.call('Commit', { snapshotter, key: 'k', name: 'base' });
    const labels = {
      'containerd.io/snapshot/uidmapping': '0:100000:65536',
      'containerd.io/snapshot/gidmapping': '0:100000:65536',
    };
    const { mounts } = await client.call('Prepare', { snapshotter, key: 'm', parent: 'base', labels });
    expect(mounts[0]?.options.slice(0, 2)).toEqual(['uidmap=0:100000:65536', 'gidmap=0:100000:65536']);
    const smuggled = { 'containerd.io/snapshot/uidmapping': '0:0:1,lowerdir=/etc' };
    expect(await failure(client.call('Prepare', { snapshotter, key: 'x', labels: smuggled }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('a request for another snapshotter is refused, where a name was given', async () => {
    const { client } = service;
    for (const snapshotter of ['', 'overlayfs', 'Overlite']) {
      expect(await failure(client.call('Stat', { snapshotter, key: 'k' }))).toEqual({
        code: 'INVALID_ARGUMENT',
        details: `there is no snapshotter "${snapshotter}" here (this one is called "overlite")`,
      });
    }
    const stream = client.stream({ snapshotter: 'overlayfs' });
    expect(await failure(stream.toArray())).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(await failure(client.call('Stat', { snapshotter: 'overlite', key: 'k' }))).toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});

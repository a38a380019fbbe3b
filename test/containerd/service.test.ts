import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { needs } from '../support/needs.ts';
import { test } from '../support/service.ts';
import { type SnapshotsClient, failure } from '../support/snapshots-client.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

/** Counts the calls that a client gets answered, one after the other, while something goes on. */
async function answeredDuring<T>(
  client: SnapshotsClient,
  body: () => Promise<T>,
): Promise<{ result: T; answered: number }> {
  const stopping = new AbortController();
  const asking = (async (): Promise<number> => {
    let answered = 0;
    for (; !stopping.signal.aborted; answered += 1) await failure(client.call('Stat', { key: 'nowhere' }));
    return answered;
  })();
  const result = await body().finally(() => stopping.abort());
  return { result, answered: await asking };
}

describe.skipIf(lacking)(`the snapshots service${lacking}`, () => {
  test('Prepare, Commit, View, Mounts, Usage, Remove and Cleanup do what the driver does', async ({
    root,
    client,
    driver,
  }) => {
    const labels = { 'containerd.io/snapshot.ref': 'sha256:1', empty: '' };
    const { mounts } = await client.call('Prepare', { snapshotter: 'any', key: 'k', labels });
    expect(mounts).toEqual([
      {
        type: 'bind',
        source: join(root, 'snapshots/1/fs'),
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
    expect(existsSync(join(root, 'snapshots/1'))).toBe(false);
    expect(await driver.pendingRemovals()).toBe(0);
  });

  test('Commit gives a parent to a snapshot that has none', async ({ client }) => {
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

  test('Stat and List give the same information, to the microsecond', async ({ client, driver }) => {
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

  test('Update changes the labels that the mask names', async ({ client }) => {
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

  test('List sends blocks of 100 snapshots, or fewer if they are large', async ({ client, driver }) => {
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

  test('errors carry their code, message and hint', async ({ client }) => {
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

  test('Remove succeeds even if the name passes to a snapshot of another kind meanwhile', async ({
    client,
    driver,
  }) => {
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

  test('Remove deletes the directory in the background', async ({ client, driver }) => {
    const { mounts } = await client.call('Prepare', { key: 'k' });
    const layer = mounts[0]?.source ?? '';
    mkdirSync(join(layer, 'a/b'), { recursive: true });
    await client.call('Remove', { key: 'k' });
    await waitFor('the deletion of the layer', () => !existsSync(layer));
    expect(await driver.exists('k')).toBe(false);
  });
});

describe.skipIf(lacking)(`requests beyond the limits${lacking}`, () => {
  test('too many labels, and too long or improper keys and values, are INVALID_ARGUMENT', async ({
    client,
  }) => {
    const many = Object.fromEntries(Array.from({ length: 501 }, (_, i) => [`k${i}`, 'v']));
    const requests = [many, { k: 'v'.repeat(4096) }, { ['k'.repeat(5000)]: '' }, { k: 'a\0b' }, { '': 'v' }];
    await client.call('Prepare', { key: 'k' });
    for (const labels of requests) {
      const tries = [
        client.call('Prepare', { key: 'x', labels }),
        client.call('View', { key: 'x', labels }),
        client.call('Commit', { key: 'k', name: 'x', labels }),
        client.call('Update', { info: { name: 'k', labels } }),
      ].map(failure);
      for (const { code } of await Promise.all(tries)) expect(code).toBe('INVALID_ARGUMENT');
    }
    for (const key of ['', 'k'.repeat(4097), 'a\0b']) {
      expect(await failure(client.call('Prepare', { key }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
      expect(await failure(client.call('Remove', { key }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(await client.names()).toEqual(['k']);
    const all = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`k${i}`, 'v'.repeat(4000)]));
    await client.call('Update', { info: { name: 'k', labels: all } });
    expect(Object.keys((await client.call('Stat', { key: 'k' })).info.labels)).toHaveLength(500);
  });

  test('a hostile filter delays no other client, or is INVALID_ARGUMENT', async ({
    driver,
    connect,
    besides,
  }) => {
    await driver.transaction((tx) => {
      for (let i = 0; i < 100; i += 1) tx.view(`${'a'.repeat(1000)}${i}`);
    });
    const patterns = ['(a+)+$x', '(a|a)*b', '(.*)*(.*)*z', '^(a?){30}a{30}z'];
    for (const pattern of patterns) {
      const listed = await besides(() => connect().names(`name~=${JSON.stringify(pattern)}`));
      expect(listed).toEqual([]);
    }
    const refused = [
      'name~="(a{1000}){1000}"',
      'name~="("',
      `name==${'x'.repeat(20_000)}`,
      `${'labels.a,'.repeat(600)}labels.a`,
      '\uFFFD',
      'name==a\0',
    ];
    for (const filter of refused) {
      expect(await besides(() => failure(connect().names(filter)))).toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
    }
    const many = Array.from({ length: 501 }, (_, i) => `name==x${i}`);
    expect(await failure(connect().names(...many))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('a slow pattern delays no other client', async ({ driver, connect, besides }) => {
    // Such that what is known of one is of no use for the next.
    let random = 1;
    const name = (): string => {
      let text = 'a';
      while (text.length < 1000) {
        random = (random * 48_271) % 2_147_483_647;
        text += random % 2 === 0 ? 'a' : 'b';
      }
      return text;
    };
    const names = Array.from({ length: 60 }, name);
    await driver.transaction((tx) => {
      for (const key of names) tx.view(key);
    });
    for (const filter of ['name~="a.{500}[cd]"', 'name~="^a.*a.{500}[cd]"']) {
      const { result, answered } = await answeredDuring(connect(), () =>
        besides(() => connect().names(filter)),
      );
      expect(result).toEqual([]);
      expect(answered).toBeGreaterThanOrEqual(16);
    }
    expect(await connect().names('name~="^ab.{500}a"')).toEqual(
      names.filter((key) => /^ab.{500}a/.test(key)),
    );
    expect(await connect().names('name~="a.{500}bb"', 'name~="bab.{300}a.{300}b"')).toEqual(
      names.filter((key) => /a.{500}bb|bab.{300}a.{300}b/.test(key)),
    );
    // A search that nobody waits for any more ends before it has found what is there.
    await driver.prepare(`${'ab'.repeat(300)}c`);
    const search = driver.snapshots('name~="a.{500}c"')[Symbol.asyncIterator]();
    const first = search.next();
    await new Promise((resolve) => setImmediate(resolve));
    await search.return?.();
    expect(await first).toEqual({ done: true, value: undefined });
    const large = 'a.{900}';
    const many = Array.from({ length: 6 }, (_, i) => `name~="${large}${i}"`);
    expect(await failure(connect().names(...many))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      details: expect.stringContaining('too large together'),
    });
  });
});

describe.skipIf(lacking)(`the service with a name and remapIds${lacking}`, () => {
  test.override('driverOptions', { asyncRemove: 'background', backups: false, remapIds: true });
  test.override('serveOptions', { name: 'overlite' });

  test('ID mapping labels become mount options, and cannot smuggle in others', async ({ client }) => {
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

  test('a request for a snapshotter of another name is INVALID_ARGUMENT', async ({ client }) => {
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

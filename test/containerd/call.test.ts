import Database from 'better-sqlite3';
import { describe, expect } from 'vitest';
import { layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { test } from '../support/service.ts';
import { failure, firstBlock } from '../support/snapshots-client.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

test.override('serveOptions', ({ calls }) => ({ onCall: (call) => calls.push(call) }));

describe.skipIf(lacking)(`calls that nobody waits for any more${lacking}`, () => {
  test('a listing ends when its client hangs up, cancels it, or stops reading until the deadline', async ({
    driver,
    connect,
    calls,
    besides,
  }) => {
    const labels = Object.fromEntries(Array.from({ length: 100 }, (_, at) => [`k${at}`, 'x'.repeat(4000)]));
    await driver.transaction((tx) => {
      for (let i = 0; i < 100; i += 1) tx.prepare(`k${i}`, null, { labels });
    });
    await besides(async () => {
      const gone = connect();
      const stream = gone.stream({});
      stream.on('error', () => {});
      await firstBlock(stream);
      gone[Symbol.dispose]();
      stream.cancel();
      const cancelled = connect().stream({});
      cancelled.on('error', () => {});
      await firstBlock(cancelled);
      cancelled.cancel();
      // On a busy machine the first block may come after the deadline: then there is more time for another listing.
      for (let wait = 1000; ; wait *= 2) {
        const stalled = connect().stream({}, { deadline: Date.now() + wait });
        const failed = failure(new Promise((_, reject) => stalled.once('error', reject)));
        const began = await firstBlock(stalled).then(
          () => true,
          () => false,
        );
        expect(await failed).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
        if (began) break;
      }
      const ended = (): string[] => calls.filter(({ method }) => method === 'List').map(({ code }) => code);
      await waitFor('the end of each listing', () => ended().length >= 3);
      // Of the last, the client may say so a moment before the server knows itself.
      for (const code of ended()) expect(code).toMatch(/^(CANCELLED|DEADLINE_EXCEEDED)$/);
    });
  });

  test('a call whose deadline has passed already changes nothing', async ({ client }) => {
    const past = { deadline: Date.now() - 1000 };
    expect(await failure(client.call('Prepare', { key: 'late' }, past))).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    expect(await client.names()).toEqual([]);
  });

  test('a write whose deadline passes while it waits for its turn never happens', async ({
    root,
    driver,
    client,
    calls,
    undo,
  }) => {
    await driver.prepare('k');
    await driver.prepare('base');
    // It is connected from here on, so that the calls reach the server before their deadline.
    await client.names();
    const other = new Database(`${root}/metadata.db`);
    undo(() => other.close());
    other.exec('begin immediate');
    const deadline = Date.now() + 1000;
    const late = [
      client.call('Prepare', { key: 'late' }, { deadline }),
      client.call('View', { key: 'later' }, { deadline }),
      client.call('Remove', { key: 'k' }, { deadline }),
      client.call('Update', { info: { name: 'k', labels: { a: 'b' } } }, { deadline }),
    ].map(failure);
    const stopping = new AbortController();
    const cancelled = failure(client.call('Remove', { key: 'base' }, { signal: stopping.signal }));
    for (const call of late) expect(await call).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    stopping.abort();
    expect(await cancelled).toMatchObject({ code: 'CANCELLED' });
    // The server has heard of it before the lock is free.
    await waitFor(
      'the end of five writes',
      () => calls.filter(({ method }) => method !== 'List').length === 5,
    );
    other.exec('commit');
    await client.call('Prepare', { key: 'afterwards' });
    expect(await client.names()).toEqual(['k', 'base', 'afterwards']);
    expect((await driver.stat('k')).labels).toEqual({});
  });

  test('a cancelled commit changes nothing', async ({ root, driver, client, calls, undo }) => {
    await driver.prepare('k');
    sh('seq 2000 | xargs touch', await layerOf(driver, 'k'));
    // However long the layer takes, it cannot be committed before the lock is free.
    const other = new Database(`${root}/metadata.db`);
    undo(() => other.close());
    other.exec('begin immediate');
    const stopping = new AbortController();
    const commit = failure(client.call('Commit', { key: 'k', name: 'n' }, { signal: stopping.signal }));
    // It has begun by now, since calls of a connection are taken in their order.
    await client.call('Stat', { key: 'k' });
    stopping.abort();
    expect(await commit).toMatchObject({ code: 'CANCELLED' });
    const ended = await waitFor('the end of the commit', () =>
      calls.find(({ method }) => method === 'Commit'),
    );
    expect(ended).toMatchObject({ code: 'CANCELLED', key: 'k', name: 'n' });
    other.exec('commit');
    expect((await client.call('Stat', { key: 'k' })).info.kind).toBe('ACTIVE');
    await client.call('Commit', { key: 'k', name: 'n' });
  });
});

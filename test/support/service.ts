import { join } from 'node:path';
import { expect } from 'vitest';
import { type CallRecord, type RunningServer, type ServeOptions, serve } from '../../src/containerd/index.ts';
import type { DriverOptions } from '../../src/index.ts';
import { test as base } from './fixtures.ts';
import { SnapshotsClient } from './snapshots-client.ts';

/** A store that is served to containerd. */
interface ServiceFixtures {
  driverOptions: DriverOptions;
  /** How `driver` is served, on a socket in `place`: `test.override` sets it for a file or a `describe`. */
  serveOptions: Partial<ServeOptions>;
  server: RunningServer;
  /** Connects another client, which is closed after the test. */
  connect: () => SnapshotsClient;
  client: SnapshotsClient;
  /** The calls that have ended so far: for `onCall` of `serveOptions`. */
  calls: CallRecord[];
  /** Does something that fails while `client` works, which must not notice. */
  besides: <T>(body: () => Promise<T>) => Promise<T>;
}

/** The shared `test`, with a service and its clients. */
export const test = base.extend<ServiceFixtures>({
  driverOptions: { asyncRemove: 'background', backups: false },
  serveOptions: {},
  server: async ({ driver, place, serveOptions }, use) => {
    const server = await serve(driver, { address: join(place, 'socket'), ...serveOptions });
    await use(server);
    await server.close({ grace: 0 });
  },
  connect: async ({ server }, use) => {
    const clients: SnapshotsClient[] = [];
    await use(() => {
      const client = new SnapshotsClient(server.address);
      clients.push(client);
      return client;
    });
    for (const client of clients) client[Symbol.dispose]();
  },
  client: async ({ connect }, use) => use(connect()),
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names of what a fixture needs from its parameter.
  calls: async ({}, use) => use([]),
  besides: async ({ client }, use) =>
    use(async (body) => {
      const stopping = new AbortController();
      const work = workUntil(stopping.signal, client);
      try {
        return await body();
      } finally {
        stopping.abort();
        await work;
      }
    }),
});

/** Makes, commits and removes snapshots, at least one. */
async function workUntil(signal: AbortSignal, client: SnapshotsClient): Promise<void> {
  for (let n = 0; n === 0 || !signal.aborted; n += 1) {
    await client.call('Prepare', { key: `other ${n}` });
    await client.call('Commit', { key: `other ${n}`, name: `others ${n}` });
    expect((await client.call('Stat', { key: `others ${n}` })).info.kind).toBe('COMMITTED');
    await client.call('Remove', { key: `others ${n}` });
  }
}

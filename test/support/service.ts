import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { type RunningServer, type ServeOptions, serve } from '../../src/containerd/index.ts';
import { type DriverOptions, OverlayDriver } from '../../src/index.ts';
import { SnapshotsClient } from './snapshots-client.ts';
import { assertWhole, makeRoot } from './store.ts';

/** A store that is served, for each test. */
export interface Service {
  readonly driver: OverlayDriver;
  readonly server: RunningServer;
  readonly client: SnapshotsClient;
  /** A directory of the test's own, in which the store and the socket are. */
  readonly parent: string;
  /** Where the store is. */
  readonly root: string;
  /** Another client, which is closed after the test. */
  connect(): SnapshotsClient;
}

/** Serves a store for each test, and checks it afterwards. */
export function useService(
  options: { driver?: DriverOptions; serve?: () => Partial<ServeOptions> } = {},
): Service {
  let made: ReturnType<typeof makeRoot> | undefined;
  let driver: OverlayDriver | undefined;
  let server: RunningServer | undefined;
  let clients: SnapshotsClient[] = [];
  const must = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error('no test is running');
    return value;
  };
  const connect = (): SnapshotsClient => {
    const client = new SnapshotsClient(must(server).address);
    clients.push(client);
    return client;
  };
  const root = (): string => join(must(made).root, 'store');
  beforeEach(async () => {
    made = makeRoot();
    driver = await OverlayDriver.open(root(), {
      asyncRemove: 'background',
      backups: false,
      ...options.driver,
    });
    server = await serve(driver, { address: join(made.root, 'socket'), ...options.serve?.() });
    clients = [];
    connect();
  });
  afterEach(async () => {
    try {
      for (const client of clients) client[Symbol.dispose]();
      await must(server).close({ grace: 0 });
      await must(driver).close();
      assertWhole(root());
    } finally {
      made?.remove();
    }
  });
  return {
    get driver() {
      return must(driver);
    },
    get server() {
      return must(server);
    },
    get client() {
      return must(clients[0]);
    },
    get parent() {
      return must(made).root;
    },
    get root() {
      return root();
    },
    connect,
  };
}

import type { Socket } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { guarded, warn } from '../guarded.ts';
import type { Snapshotter } from '../snapshot.ts';
import { type CallRecord, Calls } from './calls.ts';
import { loadOptional } from './optional.ts';
import { SNAPSHOTS, packageDefinition, snapshotsDefinition } from './protocol.ts';
import { type SnapshotsServiceOptions, snapshotsService } from './service.ts';
import { type Listener, listenOn, listenOnDescriptor } from './socket.ts';

/** The largest request, in bytes. Those of containerd have a few thousand. */
const MAX_REQUEST_BYTES = 2 * 1024 * 1024;

/** How long running calls may take to finish when a server closes, in milliseconds, by default. */
const GRACE_MS = 30_000;

/** How a snapshotter is served. */
export interface ServeOptions extends SnapshotsServiceOptions {
  /** The path of the Unix socket, or the number of an open descriptor of a socket that listens already. */
  readonly address: string | number;
  /** Offer `grpc.health.v1.Health` too, which needs the package `grpc-health-check` (default: false). */
  readonly health?: boolean;
  /** Offer `grpc.reflection.v1.ServerReflection` too, which needs `@grpc/reflection` (default: false). */
  readonly reflection?: boolean;
  /** Called when a call has ended. What it throws becomes an `OverliteWarning`. */
  readonly onCall?: (call: CallRecord) => void;
}

/** A snapshotter that is served. */
export interface RunningServer extends AsyncDisposable {
  /** The path of the socket, or `descriptor 3`. */
  readonly address: string;
  /**
   * Takes no more calls, and lets the running ones finish. What still runs after `grace` milliseconds (default: 30,000)
   * is ended. Resolves once no call runs any more. May be called more than once. The snapshotter stays open.
   */
  close(options?: { grace?: number }): Promise<void>;
}

/**
 * Serves a snapshotter to containerd, and to everybody who may open the socket, which has mode 0600.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if the address is not a possible path of a socket
 * @throws {SnapshotError} FAILED_PRECONDITION if another server listens there, a file that is not a socket is there, the
 *   directory is missing, or a package that is needed is not installed
 * @throws {SnapshotError} PERMISSION_DENIED if others may write to the directory
 */
export async function serve(snapshotter: Snapshotter, options: ServeOptions): Promise<RunningServer> {
  const calls = new Calls(guarded(options.onCall ?? (() => {}), (error) => warn(error, 'onCall has thrown')));
  const server = new Server({
    'grpc.max_receive_message_length': MAX_REQUEST_BYTES,
    'grpc.max_send_message_length': -1,
    'grpc.enable_channelz': 0,
    interceptors: [calls.interceptor],
  });
  server.addService(snapshotsDefinition, snapshotsService(snapshotter, options));
  const setHealth = options.health === true ? await addHealth(server) : undefined;
  if (options.reflection === true) await addReflection(server);
  const connections = server.createConnectionInjector(ServerCredentials.createInsecure());
  const { address } = options;
  const sockets = new Set<Socket>();
  const listener = await openListener(address, (socket) => {
    sockets.add(socket.once('close', () => sockets.delete(socket)));
    connections.injectConnection(socket);
  });
  let closing: Promise<void> | undefined;
  const close = ({ grace = GRACE_MS } = {}): Promise<void> => {
    setHealth?.('NOT_SERVING');
    closing ??= stop({ server, calls, listener, sockets, grace });
    return closing;
  };
  return { address: listener.address, close, [Symbol.asyncDispose]: () => close() };
}

/** Adds the health service. @returns a function that sets the health of this server */
async function addHealth(server: Server): Promise<(health: 'SERVING' | 'NOT_SERVING') => void> {
  const { HealthImplementation } = await loadOptional(
    ['grpc-health-check'],
    () => import('grpc-health-check'),
  );
  // The empty name stands for the server as a whole.
  const health = new HealthImplementation({ '': 'SERVING', [SNAPSHOTS]: 'SERVING' });
  health.addToServer(server);
  return (now) => {
    for (const service of ['', SNAPSHOTS]) health.setStatus(service, now);
  };
}

async function addReflection(server: Server): Promise<void> {
  const { ReflectionService } = await loadOptional(['@grpc/reflection'], () => import('@grpc/reflection'));
  new ReflectionService(packageDefinition).addToServer(server);
}

function openListener(address: string | number, onConnection: (socket: Socket) => void): Promise<Listener> {
  return typeof address === 'number'
    ? listenOnDescriptor(address, onConnection)
    : listenOn(address, onConnection);
}

interface Stopping {
  readonly server: Server;
  readonly calls: Calls;
  readonly listener: Listener;
  /** Those of all connections. */
  readonly sockets: ReadonlySet<Socket>;
  readonly grace: number;
}

async function stop({ server, calls, listener, sockets, grace }: Stopping): Promise<void> {
  listener.close();
  const finished = new Promise<void>((done) => server.tryShutdown(() => done()));
  // Their clients could keep them open for any time.
  calls.endOthers(SNAPSHOTS);
  // The library's own forced shutdown ends connections only if it keeps account of them for channelz. And its graceful one
  // can wait for ever, for a connection that a client has just broken off.
  let timer: NodeJS.Timeout | undefined;
  const graceOver = new Promise<void>((done) => {
    timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
      done();
    }, grace);
  });
  await Promise.race([finished, graceOver]);
  clearTimeout(timer);
}

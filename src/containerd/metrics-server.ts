import { once } from 'node:events';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { warn } from '../guarded.ts';
import { quote } from '../quote.ts';
import type { Metrics } from './metrics.ts';
import { listenOn } from './socket.ts';

/** A server of metrics. */
export interface MetricsServer extends AsyncDisposable {
  /** The path of a socket, or a host with its port. */
  readonly address: string;
}

/**
 * Answers `GET /metrics` over HTTP, on a unix socket of mode 0600 or on a port that only this machine reaches.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if the address is neither a path nor a port of the loopback interface
 * @throws {SnapshotError} as `serve`, for a socket
 */
export async function serveMetrics(metrics: Metrics, address: string): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    // What has begun to be sent cannot be taken back.
    void answer(metrics, request, response).catch(() => response.destroy());
  });
  // That of `listen` is awaited below. After a connection that could not be accepted, others may be.
  server.on('error', (error) => server.listening && warn(error, 'the server of metrics'));
  const isPath = address.includes('/');
  const listener = isPath
    ? await listenOn(address, (socket) => {
        server.emit('connection', socket);
      })
    : undefined;
  let place = listener?.address ?? '';
  if (!isPath) {
    const { host, port } = toLoopback(address);
    try {
      server.listen({ host, port });
      await once(server, 'listening');
    } catch (error) {
      throw toSnapshotError(error, `listening on ${quote(address)}`);
    }
    const bound = server.address();
    place = `${host.includes(':') ? `[${host}]` : host}:${typeof bound === 'object' && bound !== null ? bound.port : port}`;
  }
  return {
    address: place,
    async [Symbol.asyncDispose]() {
      listener?.close();
      server.close();
      server.closeAllConnections();
    },
  };
}

function toLoopback(address: string): { host: string; port: number } {
  const [, ipv4, ipv6, name, digits = ''] =
    /^(?:(127(?:\.\d{1,3}){3})|\[(::1)\]|(localhost)):(\d{1,5})$/.exec(address) ?? [];
  const host = ipv4 ?? ipv6 ?? (name === undefined ? undefined : '127.0.0.1');
  const port = Number(digits);
  if (host !== undefined && port <= 65_535) return { host, port };
  throw new SnapshotError('INVALID_ARGUMENT', `${quote(address)} is not an address for metrics`, {
    hint: 'give the path of a socket, with a slash, or a loopback address such as 127.0.0.1:9323',
  });
}

async function answer(metrics: Metrics, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url?.split('?')[0];
  try {
    if (path !== '/metrics') {
      response.writeHead(404).end('the metrics are at /metrics\n');
    } else if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
    } else {
      const { type, text } = await metrics.read();
      response.writeHead(200, { 'content-type': type }).end(request.method === 'HEAD' ? undefined : text);
    }
  } catch (error) {
    response.writeHead(503).end(`${toSnapshotError(error, 'reading the metrics').message}\n`);
  }
}

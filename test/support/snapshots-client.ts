import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import {
  Client,
  type ClientOptions,
  type MethodDefinition,
  type ServiceDefinition,
  type ServiceError,
  credentials,
  status,
} from '@grpc/grpc-js';
import type {
  CommitRequest,
  KeyRequest,
  ListRequest,
  MakeRequest,
  UpdateRequest,
  WireInfo,
  WireMount,
} from '../../src/containerd/messages.ts';
import { packageDefinition } from '../../src/containerd/index.ts';

/** The name of the snapshots service. */
export const SNAPSHOTS = 'containerd.services.snapshots.v1.Snapshots';

/** The path of one of its methods. */
export const PREPARE = `/${SNAPSHOTS}/Prepare`;

const methods = packageDefinition[SNAPSHOTS] as ServiceDefinition;

/** What each unary method is asked, and what it answers. */
interface Methods {
  Prepare: [request: Partial<MakeRequest>, response: { mounts: WireMount[] }];
  View: [request: Partial<MakeRequest>, response: { mounts: WireMount[] }];
  Mounts: [request: Partial<KeyRequest>, response: { mounts: WireMount[] }];
  Commit: [request: Partial<CommitRequest>, response: object];
  Remove: [request: Partial<KeyRequest>, response: object];
  Stat: [request: Partial<KeyRequest>, response: { info: WireInfo }];
  Update: [
    request: Partial<Omit<UpdateRequest, 'info'>> & { info?: Partial<WireInfo> },
    response: { info: WireInfo },
  ];
  Usage: [request: Partial<KeyRequest>, response: { size: number; inodes: number }];
  Cleanup: [request: { snapshotter?: string }, response: object];
}

/** How a call is made. */
interface CallOptions {
  readonly deadline?: Date | number;
  readonly signal?: AbortSignal;
}

/** A client of the snapshots service, with a connection of its own. */
export class SnapshotsClient implements Disposable {
  readonly client: Client;

  constructor(address: string, options: ClientOptions = {}) {
    // Otherwise clients share connections.
    const own = { 'grpc.use_local_subchannel_pool': 1, 'grpc.max_receive_message_length': -1, ...options };
    this.client = new Client(`unix:${address}`, credentials.createInsecure(), own);
  }

  /** Calls a method. Rejects with a `ServiceError`. */
  call<M extends keyof Methods>(
    method: M,
    request: Methods[M][0],
    options?: CallOptions,
  ): Promise<Methods[M][1]> {
    const { path, requestSerialize, responseDeserialize } = methods[method] as MethodDefinition<
      object,
      object
    >;
    return this.raw(path, requestSerialize(request), options).then(responseDeserialize);
  }

  /** Calls a method by its path, with bytes. */
  raw(path: string, request: Buffer, { deadline, signal }: CallOptions = {}): Promise<Buffer> {
    const same = (bytes: Buffer): Buffer => bytes;
    return new Promise((resolve, reject) => {
      const call = this.client.makeUnaryRequest(
        path,
        same,
        same,
        request,
        deadline === undefined ? {} : { deadline },
        (error: ServiceError | null, response?: Buffer) => {
          if (error === null) resolve(response ?? Buffer.alloc(0));
          else reject(error);
        },
      );
      signal?.addEventListener('abort', () => call.cancel(), { once: true });
    });
  }

  /** Begins a listing. */
  stream(request: Partial<ListRequest>, { deadline }: CallOptions = {}): ReturnType<SnapshotsClient['open']> {
    return this.open(request, deadline);
  }

  /** All blocks of a listing. */
  async blocks(...filters: string[]): Promise<WireInfo[][]> {
    const blocks: WireInfo[][] = [];
    for await (const { info } of this.stream({ filters })) blocks.push(info);
    return blocks;
  }

  /** All names of a listing. */
  async names(...filters: string[]): Promise<string[]> {
    return (await this.blocks(...filters)).flat().map(({ name }) => name);
  }

  [Symbol.dispose](): void {
    this.client.close();
  }

  private open(request: Partial<ListRequest>, deadline: Date | number | undefined) {
    const { path, requestSerialize, responseDeserialize } = methods['List'] as MethodDefinition<
      object,
      object
    >;
    return this.client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize as (bytes: Buffer) => { info: WireInfo[] },
      request,
      deadline === undefined ? {} : { deadline },
    );
  }
}

/** What a call failed with: gRPC's word, and what was said. Fails if it did not. */
export async function failure(call: Promise<unknown>): Promise<{ code: string; details: string }> {
  try {
    await call;
  } catch (error) {
    const { code, details } = error as ServiceError;
    return { code: status[code], details };
  }
  throw new Error('the call has succeeded');
}

/** Reads the first block of a listing and no further. */
export async function firstBlock(stream: ReturnType<SnapshotsClient['stream']>): Promise<WireInfo[]> {
  const [{ info }] = (await once(stream, 'data')) as [{ info: WireInfo[] }];
  stream.pause();
  return info;
}

/**
 * Begins a listing of which the client never reads anything, so that it cannot end by itself.
 *
 * @returns once it has begun, what tells how it ended: whether the server was able to answer it
 */
export async function beginUnreadListing(address: string): Promise<{ answered: Promise<boolean> }> {
  const session = connectHttp2('http://localhost', {
    createConnection: () => connectSocket(address),
    settings: { initialWindowSize: 0 },
  });
  session.on('error', () => {});
  const stream = session.request({
    ':path': `/${SNAPSHOTS}/List`,
    ':method': 'POST',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let answered = false;
  stream.on('trailers', () => (answered = true)).on('error', () => {});
  // An empty request: it is not compressed, and has no bytes.
  stream.end(Buffer.alloc(5));
  await once(stream, 'response');
  return { answered: once(stream, 'close').then(() => answered) };
}

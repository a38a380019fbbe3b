import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { type ServiceError, status } from '@grpc/grpc-js';
import { service as healthDefinition } from 'grpc-health-check';
import { describe, expect } from 'vitest';
import { serve } from '../../src/containerd/index.ts';
import { layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { test } from '../support/service.ts';
import {
  PREPARE,
  SNAPSHOTS,
  type SnapshotsClient,
  beginUnreadListing,
  failure,
} from '../support/snapshots-client.ts';
import { sh } from '../support/tree.ts';
import { field } from '../support/wire.ts';

const lacking = needs('root');

/** A method of the health service. */
interface HealthMethod {
  readonly path: string;
  readonly requestSerialize: (message: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => { status: string };
}

const healthMethod = (name: 'Check' | 'Watch'): HealthMethod =>
  healthDefinition[name] as unknown as HealthMethod;

/** Asks the health service. */
async function health(client: SnapshotsClient, name: string): Promise<string> {
  const { path, requestSerialize, responseDeserialize } = healthMethod('Check');
  return responseDeserialize(await client.raw(path, requestSerialize({ service: name }))).status;
}

describe.skipIf(lacking)(`a server with health and reflection${lacking}`, () => {
  test.override('serveOptions', { health: true, reflection: true });

  test('close() lets the running calls finish, and takes no others', async ({ driver, server, client }) => {
    await driver.prepare('k');
    sh('seq 2000 | xargs touch', await layerOf(driver, 'k'));
    const commit = client.call('Commit', { key: 'k', name: 'n' });
    await client.call('Stat', { key: 'k' });
    const closed = server.close();
    expect(await commit).toEqual({});
    await closed;
    expect(await failure(client.call('Stat', { key: 'n' }))).toMatchObject({ code: 'UNAVAILABLE' });
    expect(await driver.stat('n')).toMatchObject({ kind: 'committed' });
  });

  test('close() ends a call after the grace whose client reads nothing', async ({ driver, server }) => {
    await driver.prepare('k');
    const { answered } = await beginUnreadListing(server.address);
    await server.close({ grace: 100 });
    expect(await answered).toBe(false);
  });

  test('the health service answers SERVING until the server is closed', async ({
    server,
    client,
    connect,
  }) => {
    expect(await health(client, '')).toBe('SERVING');
    expect(await health(client, SNAPSHOTS)).toBe('SERVING');
    expect(await failure(health(client, 'another.Service'))).toMatchObject({ code: 'NOT_FOUND' });
    const { path, requestSerialize, responseDeserialize } = healthMethod('Watch');
    const watch = connect().client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {
      service: SNAPSHOTS,
    });
    const seen: string[] = [];
    watch.on('data', ({ status: now }: { status: string }) => seen.push(now));
    const ended = once(watch, 'error') as Promise<[ServiceError]>;
    await once(watch, 'data');
    // Whoever watches holds nothing up.
    await server.close();
    const [error] = await ended;
    expect(status[error.code]).toBe('UNAVAILABLE');
    expect(seen).toEqual(['SERVING', 'NOT_SERVING']);
  });

  test.for(['v1', 'v1alpha'])('reflection %s names the snapshots service', async (version, { connect }) => {
    // The request for a list of services, and its answer, by their numbers.
    const same = (bytes: Buffer): Buffer => bytes;
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const stream = connect().client.makeBidiStreamRequest(path, same, same);
    stream.write(Buffer.from([0x3a, 0x01, 0x2a]));
    const [answer] = (await once(stream, 'data')) as [Buffer];
    expect(answer.toString('latin1')).toContain(SNAPSHOTS);
    const name = Buffer.from(`${SNAPSHOTS}.Prepare`);
    stream.write(Buffer.concat([Buffer.from([0x22, name.length]), name]));
    const [described] = (await once(stream, 'data')) as [Buffer];
    expect(described.toString('latin1')).toContain('PrepareSnapshotRequest');
    stream.end();
    await once(stream, 'end');
  });
});

describe.skipIf(lacking)(`a server with the snapshots service alone${lacking}`, () => {
  test('health and reflection are UNIMPLEMENTED unless they are asked for', async ({ client }) => {
    expect(await failure(health(client, ''))).toMatchObject({ code: 'UNIMPLEMENTED' });
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    expect(await failure(client.raw(path, Buffer.alloc(0)))).toMatchObject({ code: 'UNIMPLEMENTED' });
  });

  test('serve() says what is wrong with a descriptor that is not a socket', async ({ driver }) => {
    await expect(serve(driver, { address: 9999 })).rejects.toMatchObject({
      message: expect.stringMatching(/^listening on descriptor 9999: /),
    });
  });
});

describe.skipIf(lacking)(`a server whose onCall throws${lacking}`, () => {
  test.override('serveOptions', {
    onCall: () => {
      throw new Error('not today');
    },
  });

  test('answers its calls, and warns', async ({ client }) => {
    const warned = new Promise<Error>((resolve) => {
      process.once('warning', resolve);
    });
    await client.call('Prepare', { key: 'work' });
    await expect(client.call('Stat', { key: 'work' })).resolves.toMatchObject({ info: { name: 'work' } });
    await expect(warned).resolves.toMatchObject({ message: 'onCall has thrown: Error: not today' });
  });
});

describe.skipIf(lacking)(`clients that do what they should not${lacking}`, () => {
  test.override('serveOptions', ({ calls }) => ({ onCall: (call) => calls.push(call) }));

  test('methods and services that do not exist are UNIMPLEMENTED', async ({ connect, besides }) => {
    for (const path of [
      `/${SNAPSHOTS}/Destroy`,
      '/containerd.services.content.v1.Content/List',
      '/grpc.health.v1.Health/Check',
      '/',
    ]) {
      expect(await besides(() => failure(connect().raw(path, Buffer.alloc(0))))).toMatchObject({
        code: 'UNIMPLEMENTED',
      });
    }
  });

  test('a message of 100 MB is RESOURCE_EXHAUSTED', async ({ connect, calls, besides }) => {
    const huge = field(2, Buffer.alloc(100_000_000, 0x61));
    expect(await besides(() => failure(connect().raw(PREPARE, huge)))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    expect(calls.filter(({ code }) => code !== 'OK')).toMatchObject([
      { method: 'Prepare', code: 'CANCELLED' },
    ]);
  });

  test('connections that speak no gRPC, or no HTTP at all, are closed', async ({ server, besides }) => {
    await besides(async () => {
      for (const text of [
        'GET / HTTP/1.1\r\n\r\n',
        '\0'.repeat(10_000),
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense',
      ]) {
        const socket = connectSocket(server.address);
        socket.on('error', () => {});
        socket.resume();
        socket.write(text);
        socket.end();
        await once(socket, 'close');
      }
      const idle = connectSocket(server.address);
      await once(idle, 'connect');
      const session = connectHttp2('http://localhost', {
        createConnection: () => connectSocket(server.address),
      });
      const plain = session.request({
        ':path': `/${SNAPSHOTS}/Stat`,
        ':method': 'POST',
        'content-type': 'text/html',
      });
      const [headers] = (await once(plain, 'response')) as [Record<string, unknown>];
      expect(headers[':status']).toBe(415);
      plain.resume().end();
      await once(plain, 'close');
      const unfinished = session.request({
        ':path': PREPARE,
        ':method': 'POST',
        'content-type': 'application/grpc',
      });
      unfinished.on('error', () => {});
      unfinished.write(Buffer.from([0, 0, 0, 1, 0, 0x12]));
      session.destroy();
      idle.destroy();
    });
  });

  test('a hundred clients at once have outcomes of their own', async ({ client, connect }) => {
    await client.call('Prepare', { key: 'making' });
    await client.call('Commit', { key: 'making', name: 'base' });
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const own = connect();
        const taken = await own.call('Prepare', { key: `k${i % 50}`, parent: 'base' }).then(
          () => 'OK',
          (error: { details: string }) => error.details,
        );
        await own.names('kind==active');
        return taken;
      }),
    );
    expect(outcomes.filter((outcome) => outcome === 'OK')).toHaveLength(50);
    expect(outcomes.filter((outcome) => outcome.endsWith('is taken'))).toHaveLength(50);
  });
});

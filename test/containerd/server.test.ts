import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ServiceError, status } from '@grpc/grpc-js';
import { service as healthDefinition } from 'grpc-health-check';
import { describe, expect, test } from 'vitest';
import { serve } from '../../src/containerd/index.ts';
import { isRoot } from '../support/needs.ts';
import { useService } from '../support/service.ts';
import { type SnapshotsClient, failure, firstBlock } from '../support/snapshots-client.ts';

const SNAPSHOTS = 'containerd.services.snapshots.v1.Snapshots';
const needs = isRoot ? '' : ' (needs root)';

/** Asks the health service. */
async function health(client: SnapshotsClient, name: string): Promise<string> {
  const { path, requestSerialize, responseDeserialize } = healthDefinition['Check'] as unknown as {
    path: string;
    requestSerialize: (message: object) => Buffer;
    responseDeserialize: (bytes: Buffer) => { status: string };
  };
  return responseDeserialize(await client.raw(path, requestSerialize({ service: name }))).status;
}

describe.skipIf(!isRoot)(`a server${needs}`, () => {
  const service = useService({ serve: () => ({ health: true, reflection: true }) });

  test('lets running calls finish when it is closed, and takes no others', async () => {
    const { client, driver, server } = service;
    await driver.prepare('k');
    const layer = `${(await driver.stat('k')).directory}/fs`;
    for (let i = 0; i < 100; i += 1) {
      mkdirSync(join(layer, `${i}`));
      for (let at = 0; at < 50; at += 1) writeFileSync(join(layer, `${i}`, `${at}`), 'x');
    }
    const commit = client.call('Commit', { key: 'k', name: 'n' });
    await client.call('Stat', { key: 'k' });
    const closed = server.close();
    expect(await commit).toEqual({});
    await closed;
    expect(await failure(client.call('Stat', { key: 'n' }))).toMatchObject({ code: 'UNAVAILABLE' });
    expect(await driver.stat('n')).toMatchObject({ kind: 'committed' });
  });

  test('ends after a while what does not finish by itself', async () => {
    const { driver, server } = service;
    const labels = Object.fromEntries(Array.from({ length: 100 }, (_, at) => [`k${at}`, 'x'.repeat(4000)]));
    await driver.transaction((tx) => {
      for (let i = 0; i < 50; i += 1) tx.prepare(`k${i}`, null, { labels });
    });
    const stalled = service.connect().stream({});
    await firstBlock(stalled);
    await server.close({ grace: 100 });
    stalled.on('error', () => {});
    stalled.resume();
    await once(stalled, 'close');
  });

  test('tells of its health until it is closed', async () => {
    const { client, server } = service;
    expect(await health(client, '')).toBe('SERVING');
    expect(await health(client, SNAPSHOTS)).toBe('SERVING');
    expect(await failure(health(client, 'another.Service'))).toMatchObject({ code: 'NOT_FOUND' });
    const { path, requestSerialize, responseDeserialize } = healthDefinition['Watch'] as unknown as {
      path: string;
      requestSerialize: (message: object) => Buffer;
      responseDeserialize: (bytes: Buffer) => { status: string };
    };
    const watch = service
      .connect()
      .client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, { service: SNAPSHOTS });
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

  test.each(['v1', 'v1alpha'])('tells of its services by reflection %s', async (version) => {
    // The request for a list of services, and its answer, by their numbers.
    const same = (bytes: Buffer): Buffer => bytes;
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const stream = service.connect().client.makeBidiStreamRequest(path, same, same);
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

  test('says what is wrong with a descriptor that is no socket', async () => {
    await expect(serve(service.driver, { address: 9999 })).rejects.toMatchObject({
      message: expect.stringMatching(/^listening on descriptor 9999: /),
    });
  });
});

describe.skipIf(!isRoot)(`a server with nothing but the snapshots service${needs}`, () => {
  const service = useService();

  test('has neither health nor reflection', async () => {
    expect(await failure(health(service.client, ''))).toMatchObject({ code: 'UNIMPLEMENTED' });
    const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    expect(await failure(service.client.raw(path, Buffer.alloc(0)))).toMatchObject({ code: 'UNIMPLEMENTED' });
  });
});

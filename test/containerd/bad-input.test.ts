import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import type { CallRecord } from '../../src/containerd/index.ts';
import { isRoot } from '../support/needs.ts';
import { useService } from '../support/service.ts';
import { failure, firstBlock } from '../support/snapshots-client.ts';

const PREPARE = '/containerd.services.snapshots.v1.Snapshots/Prepare';
const STAT = '/containerd.services.snapshots.v1.Snapshots/Stat';

const calls: CallRecord[] = [];
const service = useService({
  serve: () => {
    calls.length = 0;
    return { onCall: (call) => calls.push(call) };
  },
});

/** Does what is to go wrong while another client works, which must not notice. */
async function besides<T>(body: () => Promise<T>, { least = 1 } = {}): Promise<T> {
  const { client } = service;
  const stopping = new AbortController();
  const work = (async (): Promise<number> => {
    let done = 0;
    for (; !stopping.signal.aborted || done === 0; done += 1) {
      await client.call('Prepare', { key: `other ${done}` });
      await client.call('Commit', { key: `other ${done}`, name: `others ${done}` });
      expect((await client.call('Stat', { key: `others ${done}` })).info.kind).toBe('COMMITTED');
      await client.call('Remove', { key: `others ${done}` });
    }
    return done;
  })();
  let result: T;
  try {
    result = await body();
  } finally {
    stopping.abort();
    await work.catch(() => {});
  }
  expect(await work).toBeGreaterThanOrEqual(least);
  return result;
}

/** A field of protobuf that has a length. */
function field(number: number, bytes: Buffer): Buffer {
  const length: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    if (rest < 0x80) {
      length.push(rest);
      break;
    }
    length.push((rest & 0x7f) | 0x80);
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes]);
}

describe.skipIf(!isRoot)(`bad input is an error to that client alone${isRoot ? '' : ' (needs root)'}`, () => {
  const malformed: Readonly<Record<string, Buffer>> = {
    'a length beyond the end': Buffer.from([0x12, 0x7f, 0x61]),
    'a number without an end': Buffer.alloc(64, 0xff),
    noise: Buffer.from('f00dbabe8badf00d0102030405060708090a', 'hex'),
    'more fields than anyone needs': Buffer.concat(
      Array.from({ length: 30_000 }, (__, i) => field(4, field(1, Buffer.from(`${i}`)))),
    ),
    'text as a number': Buffer.from([0x10, 0x01]),
    'a label that reaches beyond its field': Buffer.concat([
      field(2, Buffer.from('k')),
      Buffer.from([0x22, 0x03, 0x0a, 0x05, 0x61, 0x62, 0x63, 0x64, 0x65]),
    ]),
    'groups in groups': Buffer.alloc(1024 * 1024, 0x0b),
    'a key that is not UTF-8': field(2, Buffer.from([0x61, 0xff, 0x62])),
    'a label that is not UTF-8': Buffer.concat([
      field(2, Buffer.from('k')),
      field(4, Buffer.concat([field(1, Buffer.from('a')), field(2, Buffer.from([0xc0, 0x80]))])),
    ]),
  };

  test.each(Object.entries(malformed))('%s', async (_, bytes) => {
    const answer = await besides(() => failure(service.connect().raw(PREPARE, bytes)));
    expect(answer.code).toBe('INVALID_ARGUMENT');
    expect(answer.details).toMatch(/^the request cannot be read: it/);
    expect(await service.client.names()).toEqual([]);
  });

  test('a replacement character that is meant is one', async () => {
    const key = 'a\uFFFDb';
    await service.client.call('Prepare', { key });
    expect(await service.client.names()).toEqual([key]);
  });

  test('methods and services that are not there', async () => {
    for (const path of [
      '/containerd.services.snapshots.v1.Snapshots/Destroy',
      '/containerd.services.content.v1.Content/List',
      '/grpc.health.v1.Health/Check',
      '/',
    ]) {
      expect(await besides(() => failure(service.connect().raw(path, Buffer.alloc(0))))).toMatchObject({
        code: 'UNIMPLEMENTED',
      });
    }
  });

  test('a message of 100 MB, said to be so or not', async () => {
    const huge = field(2, Buffer.alloc(100_000_000, 0x61));
    expect(await besides(() => failure(service.connect().raw(PREPARE, huge)))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    expect(calls.filter(({ code }) => code !== 'OK')).toMatchObject([
      { method: 'Prepare', code: 'CANCELLED' },
    ]);
  });

  test('labels without number, keys and values without end', async () => {
    const { client } = service;
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

  test('filters that are hostile', async () => {
    const { driver } = service;
    await driver.transaction((tx) => {
      for (let i = 0; i < 100; i += 1) tx.view(`${'a'.repeat(1000)}${i}`);
    });
    const patterns = ['(a+)+$x', '(a|a)*b', '(.*)*(.*)*z', '^(a?){30}a{30}z'];
    for (const pattern of patterns) {
      const listed = await besides(() => service.connect().names(`name~=${JSON.stringify(pattern)}`));
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
      expect(await besides(() => failure(service.connect().names(filter)))).toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
    }
    const many = Array.from({ length: 501 }, (_, i) => `name==x${i}`);
    expect(await failure(service.connect().names(...many))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test('a pattern that takes long, on names that are long, holds nobody up', async () => {
    const { driver } = service;
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
      expect(await besides(() => service.connect().names(filter), { least: 4 })).toEqual([]);
    }
    expect(await service.connect().names('name~="^ab.{500}a"')).toEqual(
      names.filter((key) => /^ab.{500}a/.test(key)),
    );
    expect(await service.connect().names('name~="a.{500}bb"', 'name~="bab.{300}a.{300}b"')).toEqual(
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
    expect(await failure(service.connect().names(...many))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      details: expect.stringContaining('too large together'),
    });
  });

  test('a client that hangs up in the middle of a listing, and one that reads no further', async () => {
    const { driver } = service;
    const labels = Object.fromEntries(Array.from({ length: 100 }, (_, at) => [`k${at}`, 'x'.repeat(4000)]));
    await driver.transaction((tx) => {
      for (let i = 0; i < 100; i += 1) tx.prepare(`k${i}`, null, { labels });
    });
    await besides(async () => {
      const gone = service.connect();
      const stream = gone.stream({});
      stream.on('error', () => {});
      await firstBlock(stream);
      gone[Symbol.dispose]();
      stream.cancel();
      const cancelled = service.connect().stream({});
      cancelled.on('error', () => {});
      await firstBlock(cancelled);
      cancelled.cancel();
      const stalled = service.connect().stream({}, { deadline: Date.now() + 3000 });
      await firstBlock(stalled);
      const failed = failure(new Promise((_, reject) => stalled.once('error', reject)));
      const ended = (): string[] => calls.filter(({ method }) => method === 'List').map(({ code }) => code);
      while (ended().length < 3) await new Promise((resolve) => setImmediate(resolve));
      expect(await failed).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      // Of the last, the client may say so a moment before the server knows itself.
      for (const code of ended()) expect(code).toMatch(/^(CANCELLED|DEADLINE_EXCEEDED)$/);
    });
  });

  test('a deadline that has passed already', async () => {
    const past = { deadline: Date.now() - 1000 };
    expect(await failure(service.client.call('Prepare', { key: 'late' }, past))).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    expect(await service.client.names()).toEqual([]);
  });

  test('a write whose deadline passes while it waits for its turn never happens', async () => {
    const { client, driver, root } = service;
    await driver.prepare('k');
    await driver.prepare('base');
    const other = new Database(join(root, 'metadata.db'));
    other.exec('begin immediate');
    const deadline = Date.now() + 300;
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
    while (calls.length < 5) await new Promise((resolve) => setImmediate(resolve));
    other.exec('commit');
    other.close();
    await client.call('Prepare', { key: 'afterwards' });
    expect(await client.names()).toEqual(['k', 'base', 'afterwards']);
    expect((await driver.stat('k')).labels).toEqual({});
  });

  test('a commit that is cancelled has changed nothing', async () => {
    const { client, driver } = service;
    await driver.prepare('k');
    const layer = `${(await driver.stat('k')).directory}/fs`;
    for (let i = 0; i < 200; i += 1) {
      mkdirSync(join(layer, `${i}`));
      for (let at = 0; at < 50; at += 1) writeFileSync(join(layer, `${i}`, `${at}`), 'x');
    }
    const stopping = new AbortController();
    const commit = failure(client.call('Commit', { key: 'k', name: 'n' }, { signal: stopping.signal }));
    // It has begun by now, since calls of a connection are taken in their order.
    await client.call('Stat', { key: 'k' });
    stopping.abort();
    expect(await commit).toMatchObject({ code: 'CANCELLED' });
    while (!calls.some(({ method }) => method === 'Commit')) await new Promise((done) => setImmediate(done));
    expect(calls.find(({ method }) => method === 'Commit')).toMatchObject({
      code: 'CANCELLED',
      key: 'k',
      name: 'n',
    });
    expect((await client.call('Stat', { key: 'k' })).info.kind).toBe('ACTIVE');
    await client.call('Commit', { key: 'k', name: 'n' });
  });

  test('what is not gRPC, or not HTTP at all', async () => {
    const { server } = service;
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
      const plain = session.request({ ':path': STAT, ':method': 'POST', 'content-type': 'text/html' });
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

  test('a hundred clients at once, each with an outcome of its own', async () => {
    const { client } = service;
    await client.call('Prepare', { key: 'making' });
    await client.call('Commit', { key: 'making', name: 'base' });
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const own = service.connect();
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

import { describe, expect } from 'vitest';
import { needs } from '../support/needs.ts';
import { test } from '../support/service.ts';
import { PREPARE, failure } from '../support/snapshots-client.ts';
import { field } from '../support/wire.ts';

const lacking = needs('root');

const malformed: Readonly<Record<string, Buffer>> = {
  'a length beyond the end': Buffer.from([0x12, 0x7f, 0x61]),
  'a number without an end': Buffer.alloc(64, 0xff),
  noise: Buffer.from('f00dbabe8badf00d0102030405060708090a', 'hex'),
  'more fields than anyone needs': Buffer.concat(
    Array.from({ length: 30_000 }, (_, i) => field(4, field(1, Buffer.from(`${i}`)))),
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

describe.skipIf(lacking)(`messages on the wire${lacking}`, () => {
  test.for(Object.entries(malformed))(
    'a request with %s is INVALID_ARGUMENT, and other clients do not notice',
    async ([, bytes], { client, connect, besides }) => {
      const answer = await besides(() => failure(connect().raw(PREPARE, bytes)));
      expect(answer.code).toBe('INVALID_ARGUMENT');
      expect(answer.details).toMatch(/^the request cannot be read: it/);
      expect(await client.names()).toEqual([]);
    },
  );

  test('a literal U+FFFD in a key is accepted', async ({ client }) => {
    const key = 'a\uFFFDb';
    await client.call('Prepare', { key });
    expect(await client.names()).toEqual([key]);
  });
});

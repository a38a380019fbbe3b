import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { ContentDigest, MetadataDigest } from '../../src/layers/digest.ts';
import { measure, measureNow } from '../../src/layers/seal.ts';
import { walkTree } from '../../src/linux/tree-walk.ts';
import { makeDisk } from '../support/disk.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { makeOddTree, sh, treeCommands } from '../support/tree.ts';

/** A SHA-256 over fields, each with its length before it. */
function hashOf(fields: readonly (Buffer | string)[]): string {
  const hash = createHash('sha256');
  for (const field of fields) {
    const bytes = typeof field === 'string' ? Buffer.from(field, 'latin1') : field;
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return hash.digest('hex');
}

/** The paths in a tree in the order of their bytes, as find(1) knows them, those of directories with a slash. */
function pathsIn(place: string): string[] {
  const printed = sh(String.raw`find . -mindepth 1 \( -type d -printf '%P/\0' -o -printf '%P\0' \)`, place);
  return ['/', ...printed.split('\0').slice(0, -1).toSorted()];
}

function fileAt(place: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(`${place}/`), Buffer.from(path.replace(/\/$/, ''), 'latin1')]);
}

/** The extended attributes of a file by name, as getfattr(1) reads them. */
function attributesOf(place: string, path: string): [string, Buffer][] {
  const quoted = `$'${path.replace(/\/$/, '').replaceAll(/[^\w./-]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}'`;
  const printed = sh(`getfattr -h -d -m - -e hex -- ${path === '/' ? '.' : `./${quoted}`}`, place);
  const lines = [...printed.matchAll(/^([^#=\n]+)=(?:0x([0-9a-f]*))?$/gm)];
  return lines
    .map(([, name = '', value = '']): [string, Buffer] => [name, Buffer.from(value, 'hex')])
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}

/** Whole seconds, rounded down, and the nanoseconds that are left. */
function split(nanoseconds: bigint): [bigint, bigint] {
  const rest = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return [(nanoseconds - rest) / 1_000_000_000n, rest];
}

const lacking = needs('root', ...treeCommands);

// The digests, written anew from what their comments say: seals of all stores depend on it.

test.skipIf(lacking)(
  `the metadata digest of a layer is what its definition says${lacking}`,
  async ({ target }) => {
    makeOddTree(target);
    const fields: (Buffer | string)[] = [];
    for (const path of pathsIn(target)) {
      const file = fileAt(target, path);
      const status = lstatSync(file, { bigint: true });
      const [seconds, nanoseconds] = split(status.mtimeNs);
      const isDevice = status.isBlockDevice() || status.isCharacterDevice();
      const [major, minor] = [
        (status.rdev >> 8n) & 0xfffn,
        (status.rdev & 0xffn) | ((status.rdev >> 12n) & 0xfff00n),
      ];
      fields.push(
        path,
        [
          status.mode.toString(8),
          status.uid,
          status.gid,
          status.isDirectory() ? '' : status.size,
          `${seconds}.${nanoseconds}`,
          isDevice ? `${major}:${minor}` : '',
        ].join(' '),
      );
      if (status.isSymbolicLink()) fields.push(readlinkSync(file, 'buffer'));
      if (!status.isDirectory()) continue;
      for (const [name, value] of attributesOf(target, path)) {
        if (name === 'trusted.overlay.opaque') fields.push(`${name}\0`, value);
      }
    }
    const { digest } = await measure(walkTree(target));
    expect(digest).toBe(`metadata1:${hashOf(fields)}`);
  },
);

test.skipIf(lacking)(
  `the content digest of a layer is what its definition says${lacking}`,
  async ({ target }) => {
    makeOddTree(target);
    const fields: (Buffer | string)[] = [];
    for (const path of pathsIn(target)) {
      const attributes = attributesOf(target, path);
      fields.push(path, String(attributes.length));
      for (const [name, value] of attributes) fields.push(name, value);
      const file = fileAt(target, path);
      if (lstatSync(file).isFile()) fields.push(createHash('sha256').update(readFileSync(file)).digest());
    }
    const { digest } = await measure(walkTree(target), { contents: true, contentVersion: 1 });
    expect(digest.split(' ')[1]).toBe(`content1:${hashOf(fields)}`);
  },
);

/** What version 2 has of the contents of a file. */
function blocksOf(bytes: Buffer): [Buffer, string] {
  const [blocks, places] = [createHash('sha256'), createHash('sha256')];
  let [from, to] = [0, 0];
  for (let at = 0; at < bytes.length; at += 4096) {
    const block = bytes.subarray(at, at + 4096);
    if (block.every((byte) => byte === 0)) continue;
    blocks.update(block);
    if (at !== to) {
      if (to > from) places.update(`${from} ${to} `);
      from = at;
    }
    to = at + block.length;
  }
  if (from === 0 && to === bytes.length) return [blocks.digest(), ''];
  if (to > from) places.update(`${from} ${to} `);
  return [blocks.digest(), `${bytes.length} ${places.digest('hex')}`];
}

test.skipIf(lacking)(
  `version 2 of the content digest of a layer is what its definition says${lacking}`,
  async ({ target }) => {
    makeOddTree(target);
    sh(
      `mkdir zeros; cd zeros; head -c 5000 /dev/zero > some; head -c 4096 /dev/zero > block; head -c 1 /dev/zero > one
       (cat block; echo x; cat some) > around; (cat block block; echo x; cat some; echo y) > before
       echo x > behind; truncate -s 3M behind`,
      target,
    );
    const fields: (Buffer | string)[] = [];
    for (const path of pathsIn(target)) {
      const attributes = attributesOf(target, path);
      fields.push(path, String(attributes.length));
      for (const [name, value] of attributes) fields.push(name, value);
      const file = fileAt(target, path);
      if (lstatSync(file).isFile()) fields.push(...blocksOf(readFileSync(file)));
    }
    const { digest } = await measure(walkTree(target), { contents: true });
    expect(digest.split(' ')[1]).toBe(`content2:${hashOf(fields)}`);
  },
);

test('the content digest is the same for a hole as for zeros, and another for other bytes or another place of them', async ({
  place,
}) => {
  const contentOf = async (script: string): Promise<string | undefined> => {
    sh(`rm -f file; ${script}`, place);
    const { digest } = await measure(walkTree(place), { contents: true });
    expect(measureNow(walkTree(place), { contents: true }).digest).toBe(digest);
    return digest.split(' ')[1];
  };
  const zeros = (bytes: number): string => `head -c ${bytes} /dev/zero`;
  const dense = await contentOf(`(${zeros(3_000_000)}; echo data; ${zeros(2_000_000)}) > file`);
  const sparse = await contentOf(
    'truncate -s 5000005 file; echo data | dd of=file bs=1 seek=3000000 conv=notrunc status=none',
  );
  expect(sparse).toBe(dense);
  const others = [
    'truncate -s 5000005 file; echo date | dd of=file bs=1 seek=3000000 conv=notrunc status=none',
    'truncate -s 5000005 file; echo data | dd of=file bs=1 seek=3100000 conv=notrunc status=none',
    'truncate -s 5000006 file; echo data | dd of=file bs=1 seek=3000000 conv=notrunc status=none',
    'truncate -s 5000005 file',
    'echo data > file',
    ': > file',
  ];
  const digests = [sparse];
  for (const other of others) digests.push(await contentOf(other));
  expect(new Set(digests).size).toBe(digests.length);
});

test('measureNow() gives the digests and the usage that measure() does', async ({ place }) => {
  writeFileSync(join(place, 'large'), 'x'.repeat(3_000_000));
  sh('mkdir d; echo small > d/file; ln d/file d/again; ln -s d link', place);
  const { digest, usage } = await measure(walkTree(place), { contents: true });
  expect(measureNow(walkTree(place), { contents: true })).toEqual({ digest, usage });
  expect(measureNow(walkTree(place)).digest).toBe(digest.split(' ')[0]);
});

test('ContentDigest fails for a file that becomes shorter while it is read', async ({ place }) => {
  writeFileSync(join(place, 'file'), 'x'.repeat(5_000_000));
  const digest = new ContentDigest();
  const metadata = new MetadataDigest();
  for (const entry of walkTree(place)) {
    if (entry === undefined) continue;
    metadata.add(entry);
    if (entry.text !== 'file') continue;
    const sizes: number[] = [];
    const reading = digest.add(entry, (bytes) => {
      sizes.push(bytes);
      writeFileSync(join(place, 'file'), '');
    });
    await expect(reading).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'the file "file" became shorter while it was read',
    });
    expect(sizes).toEqual([1_048_576]);
  }
  expect(metadata.digest()).toMatch(/^metadata1:[0-9a-f]{64}$/);
});

describe.skipIf(lacking)(`overlayfs's own attributes of files${lacking}`, () => {
  test.for(['ext4', 'xfs', 'btrfs', 'tmpfs'] as const)(
    'the metadata digest sees on %s that a file has lost the data that is in another layer',
    async (type, { undo }) => {
      const disk = makeDisk(type, type === 'xfs' ? 320 : 128);
      undo(() => disk.remove());
      sh(
        `mkdir lower upper work tree; head -c 20000 /dev/urandom > lower/file; : > upper/empty
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,metacopy=on overlay tree
        chmod 600 tree/file; umount tree`,
        disk.root,
      );
      const upper = join(disk.root, 'upper');
      const digest = async (): Promise<string> => (await measure(walkTree(upper))).digest;
      const sealed = await digest();
      sh('touch -r file ../time; setfattr -x trusted.overlay.metacopy file; touch -r ../time file', upper);
      expect(await digest()).not.toBe(sealed);
      const changed = await digest();
      sh(
        'touch -r empty ../time; setfattr -n trusted.overlay.whiteout -v y empty; touch -r ../time empty',
        upper,
      );
      expect(await digest()).not.toBe(changed);
    },
  );
});

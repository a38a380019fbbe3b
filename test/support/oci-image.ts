import { createCipheriv, createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { tar } from './tar.ts';
import type { TarEntry } from './tar.ts';

/** A layer of an image. */
export interface Layer {
  readonly entries: Iterable<TarEntry>;
  /** Whether the archive has it compressed. */
  readonly gzip?: boolean;
}

/** An image in the form that `ctr images import` takes. */
export interface ImageArchive {
  readonly archive: Buffer;
  /** The names that containerd gives to the snapshots of the layers, the lowest first. */
  readonly chain: readonly string[];
}

const hash = (data: string | Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`;

/** Makes an archive in the OCI layout of an image of this name, with these layers, the lowest first. */
export function makeImage(
  name: string,
  layers: readonly Layer[],
  command: readonly string[] = ['/bin/sh'],
): ImageArchive {
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, blob: Buffer): { mediaType: string; digest: string; size: number } => {
    const digest = hash(blob);
    blobs.set(digest, blob);
    return { mediaType, digest, size: blob.length };
  };
  const addJson = (kind: string, value: object): ReturnType<typeof add> =>
    add(`application/vnd.oci.image.${kind}.v1+json`, Buffer.from(JSON.stringify(value)));

  const diffs: string[] = [];
  const described = layers.map(({ entries, gzip = false }) => {
    const plain = tar(entries);
    diffs.push(hash(plain));
    const type = `application/vnd.oci.image.layer.v1.tar${gzip ? '+gzip' : ''}`;
    return add(type, gzip ? gzipSync(plain, { level: 1 }) : plain);
  });
  const config = addJson('config', {
    architecture: { x64: 'amd64' }[process.arch as string] ?? process.arch,
    os: 'linux',
    config: { Env: ['PATH=/bin'], Cmd: command },
    rootfs: { type: 'layers', diff_ids: diffs },
  });
  const manifest = addJson('manifest', { schemaVersion: 2, config, layers: described });
  const index = { ...manifest, annotations: { 'io.containerd.image.name': name } };
  const archive = tar([
    { path: 'oci-layout', content: JSON.stringify({ imageLayoutVersion: '1.0.0' }) },
    { path: 'index.json', content: JSON.stringify({ schemaVersion: 2, manifests: [index] }) },
    ...[...blobs].map(([digest, content]) => ({ path: `blobs/${digest.replace(':', '/')}`, content })),
  ]);
  const chain: string[] = [];
  for (const diff of diffs) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diff : hash(`${below} ${diff}`));
  }
  return { archive, chain };
}

/** Bytes that do not compress and are the same in every run. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

import { type ServiceError, status } from '@grpc/grpc-js';
import type { WireInfo, WireTimestamp } from '../../src/containerd/messages.ts';
import {
  type CheckpointOptions,
  type CleanupResult,
  type CommitOptions,
  type ErrorCode,
  type Info,
  type Kind,
  type Mount,
  type OverlayDriver,
  type PrepareOptions,
  type RemoveResult,
  SnapshotError,
  type Snapshotter,
  type UpdateOptions,
  type Usage,
  type ViewOptions,
} from '../../src/index.ts';
import { SnapshotsClient } from './snapshots-client.ts';

const us = (time: WireTimestamp | null): number => (time?.seconds ?? 0) * 1e6 + (time?.nanos ?? 0) / 1000;

/**
 * A snapshotter at the other end of a socket. What the wire does not tell, such as ids and directories, it knows from
 * the driver itself; what the wire has no words for it asks the driver for.
 */
export class RemoteSnapshotter implements Snapshotter {
  readonly #client: SnapshotsClient;
  readonly #driver: OverlayDriver;
  #closed = false;

  constructor(address: string, driver: OverlayDriver) {
    this.#client = new SnapshotsClient(address);
    this.#driver = driver;
  }

  async prepare(key: string, parent?: string | null, { labels = {} }: PrepareOptions = {}): Promise<Mount[]> {
    const { mounts } = await this.#call('Prepare', { key, parent: parent ?? '', labels });
    return mounts.map(toMount);
  }

  async view(key: string, parent?: string | null, { labels = {} }: ViewOptions = {}): Promise<Mount[]> {
    const { mounts } = await this.#call('View', { key, parent: parent ?? '', labels });
    return mounts.map(toMount);
  }

  async mounts(key: string): Promise<Mount[]> {
    return (await this.#call('Mounts', { key })).mounts.map(toMount);
  }

  async commit(name: string, key: string, options: CommitOptions = {}): Promise<Info> {
    const { labels = {}, parent = '', inUse, signal } = options;
    if (inUse !== undefined || signal !== undefined) return this.#driver.commit(name, key, options);
    await this.#call('Commit', { name, key, labels, parent });
    return this.stat(name);
  }

  async checkpoint(name: string, key: string, options?: CheckpointOptions): Promise<Info> {
    this.#checkOpen();
    return this.#driver.checkpoint(name, key, options);
  }

  async remove(key: string): Promise<RemoveResult> {
    await this.#call('Remove', { key });
    return {};
  }

  async delete(name: string): Promise<RemoveResult> {
    return this.remove(name);
  }

  async parent(keyOrName: string): Promise<string | null> {
    return (await this.stat(keyOrName)).parent;
  }

  async exists(keyOrName: string): Promise<boolean> {
    try {
      await this.stat(keyOrName);
      return true;
    } catch (error) {
      if (error instanceof SnapshotError && error.code === 'NOT_FOUND') return false;
      throw error;
    }
  }

  async stat(keyOrName: string): Promise<Info> {
    return this.#toInfo((await this.#call('Stat', { key: keyOrName })).info);
  }

  async update(name: string, { labels }: UpdateOptions, paths: readonly string[] = []): Promise<Info> {
    const request = { info: { name, labels }, updateMask: { paths } };
    return this.#toInfo((await this.#call('Update', request)).info);
  }

  async usage(keyOrName: string): Promise<Usage> {
    const { inodes, size } = await this.#call('Usage', { key: keyOrName });
    return { inodes, size };
  }

  async walk(fn: (info: Info) => void | Promise<void>, ...filters: string[]): Promise<void> {
    for await (const info of this.snapshots(...filters)) if (info.kind === 'committed') await fn(info);
  }

  async active(fn: (info: Info) => void | Promise<void>): Promise<void> {
    for await (const info of this.snapshots()) if (info.kind !== 'committed') await fn(info);
  }

  async *snapshots(...filters: string[]): AsyncGenerator<Info> {
    this.#checkOpen();
    let blocks: WireInfo[][];
    try {
      blocks = await this.#client.blocks(...filters);
    } catch (error) {
      throw toError(error);
    }
    for (const info of blocks.flat()) yield this.#toInfo(info);
  }

  async children(name: string): Promise<Info[]> {
    await this.stat(name);
    const children: Info[] = [];
    for await (const info of this.snapshots(`parent==${JSON.stringify(name)}`)) children.push(info);
    return children;
  }

  async chain(keyOrName: string): Promise<Info[]> {
    const chain: Info[] = [];
    for (let { parent } = await this.stat(keyOrName); parent !== null;) {
      const info = await this.stat(parent);
      chain.push(info);
      ({ parent } = info);
    }
    return chain;
  }

  async cleanup(): Promise<CleanupResult> {
    await this.#call('Cleanup', {});
    return { removed: 0, deferred: [] };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#client[Symbol.dispose]();
  }

  #checkOpen(): void {
    if (this.#closed) throw new SnapshotError('FAILED_PRECONDITION', 'the client is closed');
  }

  readonly #call: SnapshotsClient['call'] = async (method, request) => {
    this.#checkOpen();
    // Text on the wire is UTF-8, which has no such thing.
    if (/\\ud[89a-f]/.test(JSON.stringify(request)))
      throw new SnapshotError('INVALID_ARGUMENT', 'a lone surrogate cannot be sent');
    try {
      return await this.#client.call(method, request);
    } catch (error) {
      throw toError(error);
    }
  };

  async #toInfo({ name, parent, kind, createdAt, updatedAt, labels }: WireInfo): Promise<Info> {
    const createdUs = us(createdAt);
    const updatedUs = us(updatedAt);
    return {
      // Empty if it is gone by now, as a walk may find.
      ...((await this.#driver.exists(name)) && (await this.#driver.stat(name))),
      ...({} as Pick<Info, 'id' | 'directory' | 'seal' | 'inUse' | 'volatile'>),
      name,
      parent: parent === '' ? null : parent,
      kind: kind.toLowerCase() as Kind,
      createdUs,
      updatedUs,
      created: new Date(Math.trunc(createdUs / 1000)),
      updated: new Date(Math.trunc(updatedUs / 1000)),
      labels,
    };
  }
}

function toMount({
  type,
  source,
  options,
}: {
  type: string;
  source: string;
  options: readonly string[];
}): Mount {
  return { type: type as Mount['type'], source, options };
}

function toError(error: unknown): unknown {
  const { code, details } = error as ServiceError;
  return new SnapshotError(status[code] as ErrorCode, details, { cause: error });
}

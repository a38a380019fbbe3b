import type { UntypedServiceImplementation, handleServerStreamingCall, handleUnaryCall } from '@grpc/grpc-js';
import { SnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { quote } from '../quote.ts';
import type { Info, Labels, Snapshotter } from '../snapshot.ts';
import { streaming, unary } from './call.ts';
import {
  type CommitRequest,
  type KeyRequest,
  type ListRequest,
  type MakeRequest,
  type UpdateRequest,
  type WireInfo,
  type WireRequest,
  toWireInfo,
  toWireMounts,
  toWireUsage,
} from './messages.ts';
import { Malformed } from './protocol.ts';

/** How many snapshots one message of a listing holds. */
const BLOCK_INFOS = 100;

/** About how much text it holds at most: clients accept messages of 4 MiB. */
const BLOCK_LENGTH = 1024 * 1024;

/** How many labels a request may have. */
const MAX_LABELS = 500;

/** How the service is made. */
export interface SnapshotsServiceOptions {
  /** The only name of a snapshotter that requests may give (default: any). */
  readonly name?: string | undefined;
}

/** containerd's snapshots service on a snapshotter, for `addService` of a server of `@grpc/grpc-js`. */
export function snapshotsService(
  snapshotter: Snapshotter,
  { name }: SnapshotsServiceOptions = {},
): UntypedServiceImplementation {
  const method = <Request extends WireRequest, Response>(
    doing: string,
    answer: (request: Request, signal: AbortSignal) => Promise<Response>,
  ): handleUnaryCall<Request, Response> =>
    unary(doing, (request: Request, signal) => answer(checkRequest(request, name), signal));

  const list: handleServerStreamingCall<ListRequest, { info: WireInfo[] }> = streaming(
    'listing',
    (request: ListRequest, signal) =>
      inBlocks(snapshotter.snapshots(...checkRequest(request, name).filters), signal),
  );

  return {
    Prepare: method('preparing', async ({ key, parent, labels }: MakeRequest, signal) =>
      toWireMounts(await snapshotter.prepare(key, parent, { labels: checkCount(labels), signal })),
    ),
    View: method('viewing', async ({ key, parent, labels }: MakeRequest, signal) =>
      toWireMounts(await snapshotter.view(key, parent, { labels: checkCount(labels), signal })),
    ),
    Mounts: method('reading mounts', async ({ key }: KeyRequest) =>
      toWireMounts(await snapshotter.mounts(key)),
    ),
    Commit: method('committing', async (request: CommitRequest, signal) => {
      const { key, parent } = request;
      const labels = checkCount(request.labels);
      await snapshotter.commit(request.name, key, { labels, signal, ...(parent !== '' && { parent }) });
      return {};
    }),
    Remove: method('removing', async ({ key }: KeyRequest, signal) => {
      await removeAny(snapshotter, key, signal);
      return {};
    }),
    Stat: method('reading a snapshot', async ({ key }: KeyRequest) => ({
      info: toWireInfo(await snapshotter.stat(key)),
    })),
    Update: method('updating', async ({ info, updateMask }: UpdateRequest, signal) => {
      const labels = checkCount(info?.labels ?? {});
      const paths = updateMask?.paths ?? [];
      const updated = await snapshotter.update(info?.name ?? '', { labels, signal }, paths);
      return { info: toWireInfo(updated) };
    }),
    List: list,
    Usage: method('measuring', async ({ key }: KeyRequest) => toWireUsage(await snapshotter.usage(key))),
    Cleanup: method('cleaning up', async (_: WireRequest, signal) => {
      await snapshotter.cleanup({ signal });
      return {};
    }),
  } satisfies UntypedServiceImplementation;
}

function checkRequest<Request extends WireRequest>(
  request: Request | Malformed,
  name: string | undefined,
): Request {
  if (request instanceof Malformed) {
    throw new SnapshotError('INVALID_ARGUMENT', `the request cannot be read: ${request.reason}`);
  }
  if (name !== undefined && request.snapshotter !== name) {
    throw new SnapshotError(
      'INVALID_ARGUMENT',
      `there is no snapshotter ${quote(request.snapshotter)} here`,
      {
        hint: `this one is called ${quote(name)}`,
      },
    );
  }
  return request;
}

function checkCount(labels: Labels): Labels {
  const count = Object.keys(labels).length;
  if (count <= MAX_LABELS) return labels;
  throw new SnapshotError('INVALID_ARGUMENT', `${count} labels are more than ${MAX_LABELS}`);
}

/** Removes a snapshot of any kind: clients have one call for that. */
async function removeAny(snapshotter: Snapshotter, key: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    const { kind } = await snapshotter.stat(key);
    const open = kind !== 'committed';
    try {
      await (open ? snapshotter.remove(key, { signal }) : snapshotter.delete(key, { signal }));
      return;
    } catch (error) {
      if (!(error instanceof SnapshotError) || error.code !== 'FAILED_PRECONDITION') throw error;
      // Meanwhile the name may have been given to a snapshot of the other sort.
      const now = await snapshotter.stat(key);
      if (open !== (now.kind !== 'committed')) continue;
      const { message, hint } = error;
      throw new SnapshotError('FAILED_PRECONDITION', `cannot remove ${quote(key)}: ${message}`, {
        cause: error,
        ...(hint !== undefined && { hint }),
      });
    }
  }
}

/** The messages of a listing. */
async function* inBlocks(
  infos: AsyncIterable<Info>,
  signal: AbortSignal,
): AsyncGenerator<{ info: WireInfo[] }> {
  let block: WireInfo[] = [];
  let length = 0;
  for await (const info of endedBy(signal, infos)) {
    block.push(toWireInfo(info));
    length += lengthOf(info);
    if (block.length < BLOCK_INFOS && length < BLOCK_LENGTH) continue;
    yield { info: block };
    block = [];
    length = 0;
  }
  if (block.length > 0) yield { info: block };
}

/** The same items, until the signal is aborted, even in the middle of a long search. */
function endedBy<T>(signal: AbortSignal, items: AsyncIterable<T>): AsyncIterable<T> {
  const iterator = items[Symbol.asyncIterator]();
  const end = guarded(() => void iterator.return?.().catch(() => {}));
  signal.addEventListener('abort', end, { once: true });
  return { [Symbol.asyncIterator]: () => iterator };
}

function lengthOf({ name, parent, labels }: Info): number {
  let length = name.length + (parent?.length ?? 0);
  for (const [key, value] of Object.entries(labels)) length += key.length + value.length;
  return length;
}

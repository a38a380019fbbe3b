import { closeSync } from 'node:fs';
import { openWithoutMounts } from '../linux/file-calls.ts';
import { makePrivate } from '../linux/mount-calls.ts';
import { type TreeWalk, walkBeneath } from '../linux/tree-walk.ts';
import type { HeldRoot } from './held-root.ts';

/**
 * The directory of the snapshots without the mounts in it. It stays open from the first walk on, since opening it costs
 * more than the walk over a small layer.
 */
export class SnapshotsView {
  readonly #root: HeldRoot;
  #opened: { readonly fd: number | undefined } | undefined;

  constructor(root: HeldRoot) {
    this.#root = root;
  }

  /** Walks the layer of a snapshot. */
  walk(id: number): TreeWalk {
    this.#opened ??= { fd: open(this.#root.snapshots) };
    return walkBeneath(this.#opened.fd ?? this.#root.snapshots, `${id}/fs`);
  }

  close(): void {
    if (this.#opened?.fd !== undefined) closeSync(this.#opened.fd);
    this.#opened = undefined;
  }
}

/** Opens a directory again without the mounts in it. @returns `undefined` if this process may not do that */
function open(directory: number): number | undefined {
  const withoutMounts = openWithoutMounts(directory);
  // Otherwise what is mounted in the directory from now on would appear here too.
  if (withoutMounts !== undefined) makePrivate(withoutMounts);
  return withoutMounts;
}

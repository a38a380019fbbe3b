import { closeSync } from 'node:fs';
import { openDirectory, openWithoutMounts } from '../linux/file-calls.ts';
import { cString } from '../linux/foreign.ts';
import { makePrivate } from '../linux/mount-calls.ts';
import { type TreeWalk, walkBeneath, walkTree } from '../linux/tree-walk.ts';
import type { Layout } from './layout.ts';

/**
 * The directory of the snapshots without the mounts in it. It stays open from the first walk on, since opening it costs
 * more than the walk over a small layer.
 */
export class SnapshotsView {
  readonly #layout: Layout;
  #opened: { readonly fd: number | undefined } | undefined;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** Walks the layer of a snapshot. */
  walk(id: number): TreeWalk {
    this.#opened ??= { fd: open(this.#layout.snapshots) };
    const { fd } = this.#opened;
    return fd === undefined ? walkTree(this.#layout.fs(id)) : walkBeneath(fd, `${id}/fs`);
  }

  close(): void {
    if (this.#opened?.fd !== undefined) closeSync(this.#opened.fd);
    this.#opened = undefined;
  }
}

/** Opens a directory without the mounts in it. @returns `undefined` if this process may not do that */
function open(directory: string): number | undefined {
  const fd = openDirectory(cString(directory));
  try {
    const withoutMounts = openWithoutMounts(fd);
    // Otherwise what is mounted in the directory from now on would appear here too.
    if (withoutMounts !== undefined) makePrivate(withoutMounts);
    return withoutMounts;
  } finally {
    closeSync(fd);
  }
}

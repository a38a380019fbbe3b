import { closeSync } from 'node:fs';
import { openBelowMounts, openDirectory } from '../linux/file-calls.ts';
import { cString } from '../linux/foreign.ts';
import { keepPrivate } from '../linux/mount-calls.ts';
import { type TreeWalk, walkBeneath, walkTree } from '../linux/tree.ts';
import type { Layout } from './layout.ts';

/**
 * The directory of the snapshots as it is below whatever is mounted in it, held from the first walk on: opened anew
 * for each, it would cost more than the walk over a small layer.
 */
export class SnapshotsView {
  readonly #layout: Layout;
  #opened: { readonly fd: number | undefined } | undefined;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /** A walk over the layer of an id. */
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

/** Opens a directory below all mounts on anything in it; `undefined` where this process may not do that. */
function open(directory: string): number | undefined {
  const plain = openDirectory(cString(directory));
  try {
    const below = openBelowMounts(plain);
    // Or what is mounted in the directory from now on would be seen here as well.
    if (below !== undefined) keepPrivate(below);
    return below;
  } finally {
    closeSync(plain);
  }
}

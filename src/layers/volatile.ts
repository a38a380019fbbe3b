import { chmodSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { currentBoot } from '../linux/boot.ts';
import { deleteEntry } from '../linux/delete.ts';
import { Descriptors } from '../linux/descriptors.ts';
import { unlessGone } from '../linux/errno.ts';
import { holdBeneath, openDirectoryBeneath } from '../linux/file-calls.ts';
import { FileStatus, isDirectory } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { fdPath } from '../linux/tree-walk.ts';
import { quote } from '../quote.ts';
import type { HeldRoot } from './held-root.ts';

/** A snapshot that may be volatile. */
export interface MaybeVolatile {
  readonly id: number;
  readonly key: string;
  readonly volatileBoot: string | null;
}

/** The directory that overlayfs makes in `work/work` for a volatile mount. While it exists, it refuses to mount again. */
const MARK = 'incompat';

/** Opens the directory that overlayfs makes in `work`, if there is one. */
function openInner(root: HeldRoot, id: number, opened: Descriptors): number | undefined {
  const name = cString('work');
  return unlessGone(() => {
    const work = opened.add(root.open(id, 'work'));
    // Its mode is 000, so that only root can look into it.
    if (process.geteuid?.() !== 0) allow(opened.add(holdBeneath(work, name)));
    return opened.add(openDirectoryBeneath(work, name));
  });
}

function allow(held: number): void {
  const status = new FileStatus();
  status.readOpen(held);
  if (isDirectory(status.mode)) chmodSync(fdPath(held), 0o700);
}

/** Whether the last mount of a snapshot was volatile, and was not undone in order. */
export function hasMark(root: HeldRoot, id: number): boolean {
  using opened = new Descriptors();
  const inner = openInner(root, id, opened);
  if (inner === undefined) return false;
  const mark = unlessGone(() => opened.add(openDirectoryBeneath(inner, cString(MARK))));
  return mark !== undefined && new FileStatus().read(mark, cString('volatile'));
}

/**
 * Checks that a snapshot has not lost data: a volatile one may have, once the machine was restarted after it was
 * mounted.
 *
 * @throws {SnapshotError} DATA_LOSS if it is volatile and the machine was restarted
 */
export function checkNotLost(root: HeldRoot, { id, key, volatileBoot }: MaybeVolatile): void {
  if (volatileBoot === null || volatileBoot === currentBoot() || !hasMark(root, id)) return;
  throw new SnapshotError(
    'DATA_LOSS',
    `${quote(key)} is volatile, and the machine was restarted after it was mounted`,
    { hint: 'remove it, and prepare it again' },
  );
}

/** Removes the mark by which overlayfs refuses to mount a volatile snapshot again. */
export async function clearMark(root: HeldRoot, id: number): Promise<void> {
  using opened = new Descriptors();
  const inner = openInner(root, id, opened);
  if (inner !== undefined) await deleteEntry(inner, Buffer.from(MARK));
}

import { chmodSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { currentBoot } from '../linux/boot.ts';
import { quote } from '../quote.ts';
import type { Layout } from './layout.ts';

/** A snapshot that may be volatile. */
export interface MaybeVolatile {
  readonly id: number;
  readonly key: string;
  readonly volatileBoot: string | null;
}

/** The directory that overlayfs leaves in `work` with a volatile mount, and refuses to mount again with. */
function markIn(layout: Layout, id: number): string {
  const inner = join(layout.work(id), 'work');
  // It is of mode 000, which only root can look into.
  if (process.geteuid?.() !== 0 && existsSync(inner)) chmodSync(inner, 0o700);
  return join(inner, 'incompat');
}

/**
 * Looks that a volatile snapshot, if this is one, has all that was written to it: in the boot in which it was mounted
 * it has, in a later one nobody knows.
 *
 * @throws {SnapshotError} DATA_LOSS if the machine has been started anew since it was mounted
 */
export function checkNotLost(layout: Layout, { id, key, volatileBoot }: MaybeVolatile): void {
  if (
    volatileBoot === null ||
    volatileBoot === currentBoot() ||
    !existsSync(join(markIn(layout, id), 'volatile'))
  )
    return;
  throw new SnapshotError(
    'DATA_LOSS',
    `${quote(key)} is volatile, and the machine was started anew since it was mounted`,
    { hint: 'remove it, and prepare it anew' },
  );
}

/** Takes the mark away with which overlayfs would refuse to mount a volatile snapshot again. */
export function clearMark(layout: Layout, id: number): void {
  rmSync(markIn(layout, id), { recursive: true, force: true });
}

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

/** The directory that overlayfs makes in `work` for a volatile mount. While it exists, it refuses to mount again. */
function markIn(layout: Layout, id: number): string {
  const inner = join(layout.work(id), 'work');
  // Its mode is 000, so that only root can look into it.
  if (process.geteuid?.() !== 0 && existsSync(inner)) chmodSync(inner, 0o700);
  return join(inner, 'incompat');
}

/**
 * Checks that a snapshot has not lost data: a volatile one may have, once the machine was restarted after it was
 * mounted.
 *
 * @throws {SnapshotError} DATA_LOSS if it is volatile and the machine was restarted
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
    `${quote(key)} is volatile, and the machine was restarted after it was mounted`,
    { hint: 'remove it, and prepare it again' },
  );
}

/** Removes the mark by which overlayfs refuses to mount a volatile snapshot again. */
export function clearMark(layout: Layout, id: number): void {
  rmSync(markIn(layout, id), { recursive: true, force: true });
}

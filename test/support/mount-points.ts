import { linesOf, mountPointOf, readOwnMountsNow } from '../../src/linux/mountinfo.ts';

/** The mount points of this process's namespace. */
export function mountPointsNow(): string[] {
  return [...linesOf(readOwnMountsNow())].map(mountPointOf);
}

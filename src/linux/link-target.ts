import { readlinkSync } from 'node:fs';
import { errnoOf } from './errno.ts';

/**
 * The target of a file that was a symbolic link when it was listed.
 *
 * @param link its path, without a NUL
 * @throws an error for which `isGone` holds if something else is in its place
 */
export function linkTarget(link: Buffer): Buffer {
  try {
    return readlinkSync(link, 'buffer');
  } catch (error) {
    if (errnoOf(error) === 'EINVAL') throw Object.assign(error as Error, { code: 'ESTALE' });
    throw error;
  }
}

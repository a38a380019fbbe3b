import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isGone } from './errno.ts';

/**
 * Resolves the symbolic links in an absolute path, except in its last part. Parts that are missing stay as they are.
 */
export function resolveParents(path: string): string {
  const parent = dirname(path);
  return parent === path ? path : join(resolve(parent), basename(path));
}

function resolve(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (!isGone(error)) throw error;
    return resolveParents(path);
  }
}

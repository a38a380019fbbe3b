import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isGone } from './errno.ts';

/** An absolute path with the symbolic links resolved that lead to its last part. What is missing stays as it is. */
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

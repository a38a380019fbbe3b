import { lstatSync } from 'node:fs';
import { dirname } from 'node:path';
import { inUserNamespace, overflowUid } from '../linux/filesystem.ts';

/** A directory in which somebody else can replace what a root is in, or the root itself. */
export interface OpenAncestor {
  readonly path: string;
  /** Why, as a phrase for a message. */
  readonly why: string;
}

const STICKY = 0o1000;

/**
 * The uppermost directory above a root in which somebody else than root and this user can put something else in the
 * place of the next: it belongs to somebody else, or others may write to it and it has no sticky bit.
 *
 * @param root its path, without symbolic links
 */
export function findOpenAncestor(root: string): OpenAncestor | undefined {
  const me = process.geteuid?.() ?? 0;
  // The owner of what is outside of this user namespace is not known here, and mostly is root.
  const unknown = inUserNamespace() ? overflowUid() : undefined;
  let found: OpenAncestor | undefined;
  for (let path = dirname(root), below = root; path !== below; below = path, path = dirname(path)) {
    const { uid, mode } = lstatSync(path);
    if (uid !== 0 && uid !== me && uid !== unknown) found = { path, why: `it belongs to user ${uid}` };
    else if ((mode & 0o022) !== 0 && (mode & STICKY) === 0) {
      found = { path, why: `its mode is ${(mode & 0o7777).toString(8).padStart(4, '0')}` };
    }
  }
  return found;
}

import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Everything below a directory, read with nothing but node:fs: by path, the type, mode, owner and time of each file,
 * the size and a digest of what it holds, the target of a link, and which other path it is a hard link of.
 *
 * @param {string} root
 * @returns {Record<string, string>}
 */
export function readTree(root) {
  /** @type {Record<string, string>} */
  const tree = {};
  /** @type {Map<bigint, string>} */
  const first = new Map();
  /** @param {string} path */
  const read = (path) => {
    const file = join(root, path);
    const status = lstatSync(file, { bigint: true });
    const words = [status.mode.toString(8), status.uid, status.gid, status.mtimeNs];
    if (status.isDirectory()) {
      for (const name of readdirSync(file).toSorted()) read(join(path, name));
    } else if (status.isSymbolicLink()) {
      words.push(readlinkSync(file));
    } else if (status.nlink > 1n && first.has(status.ino)) {
      words.push(`= ${first.get(status.ino)}`);
    } else {
      first.set(status.ino, path);
      const contents = status.isFile() ? readFileSync(file) : Buffer.alloc(0);
      words.push(status.size, createHash('sha256').update(contents).digest('base64'));
    }
    tree[path] = words.join(' ');
  };
  read('.');
  return tree;
}

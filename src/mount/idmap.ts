import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { cloneMounts, setMountAttributes } from '../linux/mount-calls.ts';
import type { MountOptions } from './options.ts';

/** `MOUNT_ATTR_IDMAP`. */
const ID_MAPPED = 0x00100000;

/** Mappings of the form `0:1000:65536,…` as `uid_map` and `gid_map` take them: a line for each, with spaces. */
function toLines(mappings: string): string {
  return mappings
    .split(',')
    .map((mapping) => `${mapping.replaceAll(':', ' ')}\n`)
    .join('');
}

/** Creates a user namespace with mappings of ids, and without a process. @returns its descriptor */
async function openUserNamespace(uidMappings: string, gidMappings: string): Promise<number> {
  // A process is needed until its mappings are written and its namespace is open.
  const child = spawn('unshare', ['--user', 'sh', '-c', 'echo ready; read line'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    await new Promise<void>((resolve, reject) => {
      const refuse = (text: Buffer): void => reject(new SnapshotError('UNIMPLEMENTED', String(text).trim()));
      const end = (): void =>
        reject(new SnapshotError('UNIMPLEMENTED', 'the process of a user namespace has ended'));
      child.on('error', reject).once('close', guarded(end, reject));
      child.stdout.once('data', () => resolve()).on('error', reject);
      child.stderr.once('data', guarded(refuse, reject)).on('error', reject);
      child.stdin.on('error', reject);
    });
    writeFileSync(`/proc/${child.pid}/uid_map`, toLines(uidMappings));
    writeFileSync(`/proc/${child.pid}/gid_map`, toLines(gidMappings));
    return openSync(`/proc/${child.pid}/ns/user`, 'r');
  } finally {
    child.kill('SIGKILL');
    if (child.pid !== undefined) await ended;
  }
}

/**
 * Runs `body` with a function that maps ids as the options say: it takes the descriptor of a directory, and returns
 * that of a detached mount of it. Without such options, `body` is given `undefined`.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if there is only one of `uidmap` and `gidmap`
 * @throws {SnapshotError} UNIMPLEMENTED if user namespaces cannot be created
 */
export async function withMappedIds<T>(
  { uidMappings, gidMappings }: MountOptions,
  body: (map: ((directory: number) => number) | undefined) => Promise<T>,
): Promise<T> {
  if (uidMappings === undefined && gidMappings === undefined) return body(undefined);
  if (uidMappings === undefined || gidMappings === undefined) {
    throw new SnapshotError('INVALID_ARGUMENT', 'uidmap and gidmap have to be given together');
  }
  const namespace = await openUserNamespace(uidMappings, gidMappings);
  try {
    return await body((directory) => {
      const mapped = cloneMounts(directory, { recursive: false });
      try {
        setMountAttributes(mapped, { set: ID_MAPPED, userNamespace: namespace });
        return mapped;
      } catch (error) {
        closeSync(mapped);
        throw error;
      }
    });
  } finally {
    closeSync(namespace);
  }
}

/** The error of a mount of an overlay that cannot have the ids of its layers mapped. */
export function cannotMapIds(): SnapshotError {
  return new SnapshotError('UNIMPLEMENTED', 'the ids of the layers of this overlay cannot be mapped', {
    hint: 'it takes Linux 6.15, and another method than mount(2) and mount(8)',
  });
}

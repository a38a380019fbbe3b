import { spawn } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { SnapshotError } from '../errors.ts';
import { cloneMounts, setMountAttributes } from '../linux/mount-calls.ts';
import type { MountOptions } from './options.ts';

/** `MOUNT_ATTR_IDMAP`. */
const ID_MAPPED = 0x00100000;

/** `0:1000:65536,…` as the files of a user namespace take it. */
function toLines(mappings: string): string {
  return mappings
    .split(',')
    .map((mapping) => `${mapping.replaceAll(':', ' ')}\n`)
    .join('');
}

/** Opens a user namespace with mappings of ids, in which nothing goes on living. */
async function openUserNamespace(uidMappings: string, gidMappings: string): Promise<number> {
  // A process is needed for as long as it takes to write its mappings and to open its namespace.
  const child = spawn('unshare', ['--user', 'sh', '-c', 'echo ready; read line'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.stdout.once('data', () => resolve());
      child.stderr.once('data', (text: Buffer) =>
        reject(new SnapshotError('UNIMPLEMENTED', String(text).trim())),
      );
    });
    writeFileSync(`/proc/${child.pid}/uid_map`, toLines(uidMappings));
    writeFileSync(`/proc/${child.pid}/gid_map`, toLines(gidMappings));
    return openSync(`/proc/${child.pid}/ns/user`, 'r');
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

/**
 * Runs `body` with what gives a directory as a mount of it in which ids are mapped as the options say; or, if they say
 * nothing, with what gives the directory as it is.
 */
export async function withMappedIds<T>(
  { uidMappings, gidMappings }: MountOptions,
  body: (map: ((directory: number) => number) | undefined) => Promise<T>,
): Promise<T> {
  if (uidMappings === undefined && gidMappings === undefined) return body(undefined);
  if (uidMappings === undefined || gidMappings === undefined) {
    throw new SnapshotError('INVALID_ARGUMENT', 'uidmap and gidmap are given together or not at all');
  }
  const namespace = await openUserNamespace(uidMappings, gidMappings);
  try {
    return await body((directory) => {
      const mapped = cloneMounts(directory, false);
      try {
        setMountAttributes(mapped, ID_MAPPED, false, namespace);
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

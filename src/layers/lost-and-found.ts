import { closeSync, constants, fsyncSync, openSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { openDirectoryBeneath, moveFile } from '../linux/file-calls.ts';
import { FileStatus } from '../linux/file-status.ts';
import { cString } from '../linux/foreign.ts';
import { jsonText } from '../quote.ts';
import { pathIn } from '../linux/tree-walk.ts';
import type { HeldRoot } from './held-root.ts';

/** A note about something that was set aside. */
export interface Note {
  /** What it is. */
  readonly what: string;
  /** Why it is here. */
  readonly why: string;
  /** Anything else that is useful, such as rows that were taken out. */
  readonly [detail: string]: unknown;
}

/** A place in `lost+found/`. */
export interface Place {
  readonly name: string;
  /** Its path, for people. */
  readonly path: string;
}

/**
 * A free place in `lost+found/`, which is made if it is missing. The name contains the id, if there is one.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if `lost+found/` is a symbolic link or not a directory
 */
export function placeFor(root: HeldRoot, id: number | undefined): Place {
  const directory = root.make('lost+found');
  const status = new FileStatus();
  const isFree = (name: string): boolean => !status.read(directory, cString(name));
  const stem = `${id === undefined ? 'entry' : `snapshot-${id}`}-${Date.now()}-${process.pid}`;
  for (let number = 1; ; number += 1) {
    const name = number === 1 ? stem : `${stem}-${number}`;
    if (isFree(name) && isFree(`${name}.note`)) return { name, path: join(root.layout.lostAndFound, name) };
  }
}

/**
 * Writes a note, beside the place that it is about if that is given. It is durable.
 *
 * @returns the path of the note
 */
export function writeNote(root: HeldRoot, note: Note, place: Place = placeFor(root, undefined)): string {
  const directory = root.make('lost+found');
  const file = openSync(pathIn(directory, Buffer.from(`${place.name}.note`)), NEW_FILE, 0o600);
  try {
    writeFileSync(file, `${jsonText({ when: new Date().toISOString(), ...note }, 2)}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  fsyncSync(directory);
  return `${place.path}.note`;
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/**
 * Moves a file or directory of the store to `lost+found/`, with a note of what it is and why. All is durable.
 *
 * @param path its path below that of the root
 * @returns its new path
 * @throws a system error with the code `EXDEV` if something is mounted on the way to it
 */
export function setAside(root: HeldRoot, path: string | Buffer, id: number | undefined, why: string): string {
  const place = placeFor(root, id);
  const bytes = Buffer.from(path);
  const text = bytes.toString();
  // A path that is not UTF-8 is given in hexadecimal too.
  const exact = Buffer.from(text).equals(bytes) ? {} : { pathInHexadecimal: bytes.toString('hex') };
  const lostAndFound = root.make('lost+found');
  withParent(root, path, (parent, name) => {
    moveFile(parent, name, lostAndFound, cString(place.name));
    fsyncSync(parent);
  });
  writeNote(root, { what: text, ...exact, why }, place);
  return place.path;
}

/** Runs `body` with the directory open that a file of the store is in, and with the name of the file. */
export function withParent<T>(
  root: HeldRoot,
  path: string | Buffer,
  body: (parent: number, name: Buffer) => T,
): T {
  // One character for each byte.
  const inRoot = Buffer.from(path)
    .subarray(Buffer.byteLength(root.layout.root) + 1)
    .toString('latin1');
  const above = dirname(inRoot);
  const [, inSnapshots] = /^snapshots(?:\/|$)(.*)$/s.exec(above) ?? [];
  const parent =
    inSnapshots === undefined
      ? openDirectoryBeneath(root.fd, toName(above))
      : openDirectoryBeneath(root.snapshots, toName(inSnapshots || '.'));
  try {
    return body(parent, toName(basename(inRoot)));
  } finally {
    closeSync(parent);
  }
}

function toName(text: string): Buffer {
  return cString(Buffer.from(text, 'latin1'));
}

import { existsSync, lstatSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { jsonText, quote } from '../quote.ts';
import { syncPath } from '../linux/sync-path.ts';
import type { Layout } from './layout.ts';

/** A note about something that was set aside. */
export interface Note {
  /** What it is. */
  readonly what: string;
  /** Why it is here. */
  readonly why: string;
  /** Anything else that is useful, such as rows that were taken out. */
  readonly [detail: string]: unknown;
}

/**
 * A free path in `lost+found/`, which is made if it is missing. The name contains the id, if there is one.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if `lost+found/` is a symbolic link
 */
export function placeFor(layout: Layout, id: number | undefined): string {
  mkdirSync(layout.lostAndFound, { recursive: true, mode: 0o700 });
  if (!lstatSync(layout.lostAndFound).isDirectory()) {
    throw new SnapshotError(
      'FAILED_PRECONDITION',
      `${quote(layout.show(layout.lostAndFound))} is a symbolic link`,
    );
  }
  const name = `${id === undefined ? 'entry' : `snapshot-${id}`}-${Date.now()}-${process.pid}`;
  for (let number = 1; ; number += 1) {
    const place = join(layout.lostAndFound, number === 1 ? name : `${name}-${number}`);
    if (!existsSync(place) && !existsSync(`${place}.note`)) return place;
  }
}

/** Writes a note, beside the place that it is about if that is given. @returns the path of the note */
export function writeNote(layout: Layout, note: Note, place: string = placeFor(layout, undefined)): string {
  const file = `${place}.note`;
  writeFileSync(file, `${jsonText({ when: new Date().toISOString(), ...note }, 2)}\n`, {
    mode: 0o600,
    flag: 'wx',
  });
  return file;
}

/** Moves a file or directory to `lost+found/`, with a note of what it is and why. @returns its new path */
export function setAside(layout: Layout, path: string | Buffer, id: number | undefined, why: string): string {
  const place = placeFor(layout, id);
  const bytes = Buffer.from(path);
  const text = bytes.toString();
  // A path that is not UTF-8 is given in hexadecimal too.
  const exact = Buffer.from(text).equals(bytes) ? {} : { pathInHexadecimal: bytes.toString('hex') };
  renameSync(path, place);
  writeNote(layout, { what: layout.show(text), ...exact, why }, place);
  syncPath(layout.lostAndFound);
  return place;
}

import { existsSync, lstatSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { syncPath } from '../linux/sync.ts';
import type { Layout } from './layout.ts';

/** What is written down about something that was set aside. */
export interface Note {
  /** What it is. */
  readonly what: string;
  /** Why it is here. */
  readonly why: string;
  /** What else is good to know, such as the rows that were taken out. */
  readonly [detail: string]: unknown;
}

/**
 * A place in `lost+found/` that is not taken. The id, where there is one, stays to be seen from the name.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if that leads out of the store
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

/** Writes a note down beside what it is about, or by itself. @returns its path */
export function writeNote(layout: Layout, note: Note, place: string = placeFor(layout, undefined)): string {
  const file = `${place}.note`;
  writeFileSync(file, `${JSON.stringify({ when: new Date().toISOString(), ...note }, null, 2)}\n`, {
    mode: 0o600,
    flag: 'wx',
  });
  return file;
}

/** Moves something to `lost+found/`, with a note of what it is and why. @returns where it is now */
export function setAside(layout: Layout, path: string | Buffer, id: number | undefined, why: string): string {
  const place = placeFor(layout, id);
  const bytes = Buffer.from(path);
  const text = bytes.toString();
  // The path is told in hexadecimal too where it is no UTF-8.
  const exact = Buffer.from(text).equals(bytes) ? {} : { pathInHexadecimal: bytes.toString('hex') };
  renameSync(path, place);
  writeNote(layout, { what: layout.show(text), ...exact, why }, place);
  syncPath(layout.lostAndFound);
  return place;
}

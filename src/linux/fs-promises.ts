import * as fs from 'node:fs';
import { promisify } from 'node:util';

/*
 * Functions of node:fs as promises. node:fs/promises has those on descriptors only as methods of file handles, and its
 * `unlink` takes a fifth more processor time.
 */
export const close = promisify(fs.close);
export const fsync = promisify(fs.fsync);
export const read = promisify(fs.read);
export const unlink = promisify(fs.unlink);

import { lstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { OverlayDriver } from '../driver/driver.ts';
import { Layout } from '../driver/layout.ts';
import type { DriverOptions } from '../driver/options.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { quote } from '../names.ts';
import type { Usage } from '../snapshot.ts';
import type { StoreOptions } from './command.ts';

/** Opens a store to write to it, and makes it if the root is not there or empty. */
export function openOrMakeStore(
  { root, busyTimeout }: StoreOptions,
  options: DriverOptions = {},
): Promise<OverlayDriver> {
  return OverlayDriver.open(root, { ...options, ...(busyTimeout !== undefined && { busyTimeout }) });
}

/** Opens a store that is there, to write to it. */
export async function openStore(
  { root, busyTimeout }: StoreOptions,
  options: DriverOptions = {},
): Promise<OverlayDriver> {
  if (!isThere(new Layout(resolve(root)).database)) {
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(root)} is not the root of a store`, {
      hint: 'prepare, view and serve make one; restore makes one from a backup',
    });
  }
  return OverlayDriver.open(root, { ...options, ...(busyTimeout !== undefined && { busyTimeout }) });
}

/** What a snapshot holds; `undefined` if it has gone since it was listed. */
export async function usageOf(driver: OverlayDriver, name: string): Promise<Usage | undefined> {
  try {
    return await driver.usage(name);
  } catch (error) {
    if (error instanceof SnapshotError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
}

function isThere(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    throw toSnapshotError(error, 'looking for the store');
  }
}

/** Opens a store that is there, only to look at it: nothing is deleted or backed up meanwhile. */
export function lookAtStore(options: StoreOptions): Promise<OverlayDriver> {
  return openStore(options, { asyncRemove: true, backups: false });
}

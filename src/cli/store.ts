import { lstatSync, readdirSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { OverlayDriver } from '../driver/driver.ts';
import { Layout } from '../layers/layout.ts';
import type { DriverOptions } from '../driver/options.ts';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Info, Usage } from '../snapshot.ts';
import type { StoreOptions } from './command.ts';

/** Opens a store to write to it, and creates it if the root is missing or empty. */
export async function openOrCreateStore(
  { root, busyTimeout }: StoreOptions,
  options: DriverOptions = {},
): Promise<OverlayDriver> {
  const layout = new Layout(resolve(root));
  if (!isThere(layout.database)) checkEmpty(layout);
  return OverlayDriver.open(root, { ...options, ...(busyTimeout !== undefined && { busyTimeout }) });
}

/** @throws {SnapshotError} FAILED_PRECONDITION if a root holds anything but a store whose creation was interrupted */
function checkEmpty(layout: Layout): void {
  const { root, snapshots, restoring } = layout;
  if (!isThere(root)) return;
  const known = new Set([basename(snapshots), 'lost+found']);
  // The driver reports a restoration that was interrupted.
  if (isThere(restoring)) return;
  const found = readdirSync(root).filter((name) => !known.has(name));
  if (isThere(snapshots)) found.push(...readdirSync(snapshots));
  if (found.length === 0) return;
  if (hasLayers(layout)) throw databaseLost(root);
  throw new SnapshotError('FAILED_PRECONDITION', `${quote(root)} is not empty and has no database`, {
    hint: 'choose another directory',
  });
}

/** Opens an existing store to write to it. */
export async function openStore(
  { root, busyTimeout }: StoreOptions,
  options: DriverOptions = {},
): Promise<OverlayDriver> {
  const layout = new Layout(resolve(root));
  if (!isThere(layout.database)) {
    if (hasLayers(layout)) throw databaseLost(root);
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(root)} is not the root of a store`, {
      hint: 'prepare, view and serve create one; restore creates one from a backup',
    });
  }
  return OverlayDriver.open(root, { ...options, ...(busyTimeout !== undefined && { busyTimeout }) });
}

/** Whether there is anything in the directory of the layers. A crash can leave it empty, before there is a database. */
function hasLayers({ snapshots }: Layout): boolean {
  return isThere(snapshots) && readdirSync(snapshots).length > 0;
}

function databaseLost(root: string): SnapshotError {
  return new SnapshotError('FAILED_PRECONDITION', `${quote(root)} has layers, but no database`, {
    hint: 'bring back a backup of it with overlite restore',
  });
}

/** The usage of a snapshot: `undefined` if it was removed since it was listed, `null` if its layer is lost. */
export async function usageOf(driver: OverlayDriver, name: string): Promise<Usage | null | undefined> {
  try {
    return await driver.usage(name);
  } catch (error) {
    const code = error instanceof SnapshotError ? error.code : undefined;
    if (code === 'NOT_FOUND') return undefined;
    if (code === 'DATA_LOSS') return null;
    throw error;
  }
}

/** A snapshot and all its descendants. */
export async function withDescendants(driver: OverlayDriver, name: string): Promise<Info[]> {
  const { id } = await driver.stat(name);
  const { snapshot, descendants } = await driver.owner(`snapshots/${id}`);
  return [snapshot, ...descendants];
}

function isThere(file: string): boolean {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    throw toSnapshotError(error, 'looking for the store');
  }
}

/** Opens an existing store only to read it: nothing is deleted or backed up meanwhile. */
export function openStoreToRead(options: StoreOptions): Promise<OverlayDriver> {
  return openStore(options, { asyncRemove: true, backups: false });
}

import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Labels } from '../snapshot.ts';

/** containerd's label for the mapping of user IDs in a snapshot, in the form `container:host:length[,…]`. */
export const UID_MAPPING = 'containerd.io/snapshot/uidmapping';

/** containerd's label for the mapping of group IDs in a snapshot. */
export const GID_MAPPING = 'containerd.io/snapshot/gidmapping';

const MAX_ID = 0xffff_ffff;

/** Checks a mapping: a label must not be able to add a mount option. */
function checkMapping(label: string, mapping: string): void {
  const valid =
    /^\d{1,10}:\d{1,10}:\d{1,10}(,\d{1,10}:\d{1,10}:\d{1,10})*$/.test(mapping) &&
    mapping.split(',').every((range) => {
      const [container = 0, host = 0, length = 0] = range.split(':').map(Number);
      return length > 0 && container + length <= MAX_ID && host + length <= MAX_ID;
    });
  if (!valid) {
    const message = `label ${quote(label)} is not a valid ID mapping: ${quote(mapping)}`;
    const hint = 'the form is container:host:length, with commas between several';
    throw new SnapshotError('INVALID_ARGUMENT', message, { hint });
  }
}

/** @throws {SnapshotError} INVALID_ARGUMENT if a label for an ID mapping is not a valid one */
export function checkIdMappings(labels: Labels): void {
  for (const label of [UID_MAPPING, GID_MAPPING]) {
    const mapping = labels[label];
    if (mapping !== undefined && mapping !== '') checkMapping(label, mapping);
  }
}

/** The mount options for the ID mappings among the labels. @throws as `checkIdMappings` */
export function idMapOptions(labels: Labels): string[] {
  checkIdMappings(labels);
  const uids = labels[UID_MAPPING];
  const gids = labels[GID_MAPPING];
  return [
    ...(uids === undefined ? [] : [`uidmap=${uids}`]),
    ...(gids === undefined ? [] : [`gidmap=${gids}`]),
  ];
}

/** The ID on the host to which a label maps root of the container; `undefined` if it does not map that. */
export function mappedRoot(labels: Labels, label: string): number | undefined {
  for (const range of labels[label]?.split(',') ?? []) {
    const [container, host] = range.split(':').map(Number);
    if (container === 0) return host;
  }
  return undefined;
}

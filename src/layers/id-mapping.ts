import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Labels } from '../snapshot.ts';

/** containerd's label for the user ids of a snapshot, in the form `container:host:length[,…]`. */
export const UID_MAPPING = 'containerd.io/snapshot/uidmapping';

/** containerd's label for the group ids of a snapshot. */
export const GID_MAPPING = 'containerd.io/snapshot/gidmapping';

const MAX_ID = 0xffff_ffff;

/** Checks a mapping, since what a label says must not be able to smuggle in a mount option. */
function checkMapping(label: string, mapping: string): void {
  const right =
    /^\d{1,10}:\d{1,10}:\d{1,10}(,\d{1,10}:\d{1,10}:\d{1,10})*$/.test(mapping) &&
    mapping.split(',').every((range) => {
      const [container = 0, host = 0, length = 0] = range.split(':').map(Number);
      return length > 0 && container + length <= MAX_ID && host + length <= MAX_ID;
    });
  if (!right) {
    throw new SnapshotError('INVALID_ARGUMENT', `label ${quote(label)} is no id mapping: ${quote(mapping)}`, {
      hint: 'the form is container:host:length, more of them after commas',
    });
  }
}

/** @throws {SnapshotError} INVALID_ARGUMENT if labels hold an id mapping that is none */
export function checkIdMappings(labels: Labels): void {
  for (const label of [UID_MAPPING, GID_MAPPING]) {
    const mapping = labels[label];
    if (mapping !== undefined && mapping !== '') checkMapping(label, mapping);
  }
}

/** The mount options of the id mappings among the labels. @throws as `checkIdMappings` */
export function idMapOptions(labels: Labels): string[] {
  checkIdMappings(labels);
  const uids = labels[UID_MAPPING];
  const gids = labels[GID_MAPPING];
  return [
    ...(uids === undefined ? [] : [`uidmap=${uids}`]),
    ...(gids === undefined ? [] : [`gidmap=${gids}`]),
  ];
}

/** The id on the host that a label maps root to; `undefined` if it maps nothing to it. */
export function mappedRoot(labels: Labels, label: string): number | undefined {
  for (const range of labels[label]?.split(',') ?? []) {
    const [container, host] = range.split(':').map(Number);
    if (container === 0) return host;
  }
  return undefined;
}

import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** The mount point of a live overlay, and a directory of the store that it uses. */
type Use = { readonly mount: string; readonly directory: string };

/** What the step `mounts` can find. */
export const MOUNT_FINDINGS = {
  'mount-of-damaged': {
    severity: 'error',
    message: ({ mount, directory, snapshot }: Use & { snapshot: string }) =>
      `the overlay at ${mount} uses ${directory}, the layer of ${snapshot}, which is damaged`,
  },
  'mount-of-removed': {
    severity: 'warning',
    message: ({ mount, directory }: Use) =>
      `the overlay at ${mount} uses ${directory}, which is to be deleted when nothing uses it any more`,
  },
  'mount-of-unknown': {
    severity: 'warning',
    message: ({ mount, directory }: Use) =>
      `the overlay at ${mount} uses ${directory}, which belongs to no snapshot`,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

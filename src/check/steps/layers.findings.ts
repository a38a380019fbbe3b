import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** How many inodes a layer holds, and held when it was committed, if that is known. */
type Inodes = { readonly now: number; readonly sealed: number | null };

/** What the step `layers` can find. */
export const LAYER_FINDINGS = {
  'seal-broken': {
    severity: 'error',
    message: ({ snapshot, inodes }: { snapshot: string; inodes: Inodes }) =>
      `the layer of ${snapshot} has changed since its commit${isSame(inodes) ? '' : ` (${count(inodes)})`}`,
    damagesLayer: true,
  },
  'usage-differs': {
    severity: 'error',
    message: ({ snapshot, inodes }: { snapshot: string; inodes: Inodes }) =>
      `the layer of ${snapshot} is not what its row says: ${count(inodes)}`,
    damagesLayer: true,
  },
  'blocks-differ': {
    severity: 'info',
    message: ({ snapshot, now, sealed }: { snapshot: string; now: number; sealed: number }) =>
      `the layer of ${snapshot} takes ${now} bytes on disk, and took ${sealed} when it was committed`,
  },
  'seal-in-use': {
    severity: 'warning',
    message: ({ snapshot, inodes }: { snapshot: string; inodes: Inodes }) =>
      `the layer of ${snapshot} is not as it was sealed, but it was in use then (${count(inodes)})`,
  },
  'seal-unknown': {
    severity: 'info',
    message: ({ snapshot }: { snapshot: string }) =>
      `the layer of ${snapshot} has no seal that this version can verify`,
  },
  'layer-unreadable': {
    severity: 'error',
    message: ({ snapshot, error }: { snapshot: string; error: Error }) =>
      `the layer of ${snapshot} cannot be read: ${error.message}`,
    damagesLayer: true,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

function isSame({ now, sealed }: Inodes): boolean {
  return sealed === null || now === sealed;
}

function count({ now, sealed }: Inodes): string {
  return `it holds ${now} inodes${sealed === null ? '' : `, and held ${sealed} when it was committed`}`;
}

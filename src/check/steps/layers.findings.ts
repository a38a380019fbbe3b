import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** How many inodes a layer holds, and held when it was committed, if that is known. */
type Inodes = { readonly now: number; readonly sealed: number | null };

/** How a layer has changed, as far as its files show it. */
export type Trace = 'copied' | 'metadata' | 'copied-whole';

const TRACES: Readonly<Record<Trace, string>> = {
  copied:
    'every file in it was modified after that, so it is probably a copy that lost the times (cp -a, rsync -aHAXS and tar --xattrs keep them)',
  'copied-whole':
    'its contents are as they were, and every file was modified after that: it is a copy that lost the times (cp -a, rsync -aHAXS and tar --xattrs keep them)',
  metadata: 'its contents are as they were, but not all modes, owners, times and targets of links',
};

/** What the step `layers` can find. */
export const LAYER_FINDINGS = {
  'seal-broken': {
    severity: 'error',
    message: ({ snapshot, inodes, trace }: { snapshot: string; inodes: Inodes; trace: Trace | undefined }) =>
      `the layer of ${snapshot} has changed since its commit${isSame(inodes) ? '' : ` (${count(inodes)})`}${trace === undefined ? '' : `: ${TRACES[trace]}`}`,
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
  'whiteout-in-base': {
    severity: 'warning',
    message: ({ snapshot, found }: { snapshot: string; found: string }) =>
      `the base ${snapshot} holds character devices 0/0, which are hidden below a workspace: ${found}`,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

function isSame({ now, sealed }: Inodes): boolean {
  return sealed === null || now === sealed;
}

function count({ now, sealed }: Inodes): string {
  return `it holds ${now} inodes${sealed === null ? '' : `, and held ${sealed} when it was committed`}`;
}

import type { RunPurpose } from '../../layers/run-workspace.ts';
import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** What the step `leftovers` can find. */
export const LEFTOVER_FINDINGS = {
  'removal-waiting': {
    severity: 'info',
    message: ({ path, use }: { path: string; use: string | undefined }) =>
      `${path} is still to be deleted${use === undefined ? '' : `: ${use}`}`,
  },
  'reservation-abandoned': {
    severity: 'info',
    message: ({ id }: { id: number }) => `id ${id} is reserved for a copy that no process is making any more`,
  },
  'run-abandoned': {
    severity: 'info',
    message: ({
      snapshot,
      purpose,
      certain,
    }: {
      snapshot: string;
      purpose: RunPurpose;
      certain: boolean;
    }) => {
      const what = `${snapshot} is the workspace of a command whose overlite was killed`;
      if (purpose === 'commit') return `${what} before it committed the result: commit it, or remove it`;
      return `${what}: ${certain ? 'the next open or cleanup removes it' : 'remove it, unless the command still runs'}`;
    },
  },
  'volatile-lost': {
    severity: 'error',
    message: ({ snapshot, unrecorded }: { snapshot: string; unrecorded: boolean }) =>
      unrecorded
        ? `${snapshot} was mounted as volatile by something else than overlite, and overlayfs refuses to mount it again`
        : `${snapshot} is volatile, and the machine has restarted since it was mounted`,
  },
  'open-long': {
    severity: 'info',
    message: ({ snapshot, since }: { snapshot: string; since: string }) =>
      `${snapshot} has been open since ${since}`,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

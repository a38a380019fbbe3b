import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** What the step `directories` can find about the place of the root. */
export const PLACE_FINDINGS = {
  'root-replaceable': {
    severity: 'warning',
    message: ({ path, why }: { path: string; why: string }) =>
      `somebody else can put something else in the place of the root, in ${path}: ${why}`,
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

import { quoteWhole } from '../../quote.ts';
import type { FindingCode } from '../../report.ts';
import type { Description } from '../description.ts';

/** What the step `graph` can find. */
export const GRAPH_FINDINGS = {
  'missing-parent': {
    severity: 'error',
    message: ({ snapshot, parentId }: { snapshot: string; parentId: number }) =>
      `the parent of ${snapshot}, id ${parentId}, does not exist`,
    damagesLayer: true,
  },
  'parent-not-committed': {
    severity: 'error',
    message: ({ snapshot, parent, kind }: { snapshot: string; parent: string; kind: string }) =>
      `the parent of ${snapshot}, ${parent}, is not committed but ${kind}`,
    damagesLayer: true,
  },
  cycle: {
    severity: 'error',
    message: ({ snapshot }: { snapshot: string }) =>
      `${snapshot} is its own ancestor, or descends from a snapshot that is`,
    damagesLayer: true,
  },
  'kind-unknown': {
    severity: 'error',
    message: ({ snapshot, kind }: { snapshot: string; kind: string }) =>
      `${snapshot} has unknown kind ${quoteWhole(kind)}`,
    damagesLayer: true,
  },
  'kind-and-usage': {
    severity: 'error',
    message: ({ snapshot, kind }: { snapshot: string; kind: string }) =>
      kind === 'committed'
        ? `${snapshot} is committed without a usage`
        : `${snapshot} is ${kind} with a usage`,
    repair: { sentence: 'make the usage fit the kind', phase: 'rows' },
  },
  'chain-too-long': {
    severity: 'error',
    message: ({ snapshot, lowers, most }: { snapshot: string; lowers: number; most: number }) =>
      `${snapshot} is on ${lowers} layers, but overlayfs stacks at most ${most}`,
  },
  'live-and-journalled': {
    severity: 'error',
    message: ({ snapshot, part }: { snapshot: string; part: string }) =>
      `${snapshot} exists, but the removal journal wants it deleted (${part})`,
    repair: { sentence: 'take it out of the removal journal', phase: 'rows' },
  },
  'high-water-low': {
    severity: 'error',
    message: ({ highWater, highest }: { highWater: number | undefined; highest: number }) =>
      highWater === undefined
        ? 'the high-water mark of ids is missing'
        : `the high-water mark of ids is ${highWater}, but id ${highest} was assigned: ids would be assigned twice`,
    repair: { sentence: 'raise the high-water mark', phase: 'rows' },
  },
  'high-water-high': {
    severity: 'error',
    message: ({ mark, holder }: { mark: number; holder: string | undefined }) =>
      holder === undefined
        ? `the high-water mark of ids is ${mark}, which leaves none for new snapshots`
        : `the id of ${holder} is ${mark}, which leaves none for new snapshots: remove it, and check again`,
    repair: {
      sentence: 'lower the high-water mark to the highest id that was used, and a million more',
      phase: 'rows',
      when: ({ holder }: { holder: string | undefined }) => holder === undefined,
    },
  },
} as const satisfies Partial<Record<FindingCode, Description>>;

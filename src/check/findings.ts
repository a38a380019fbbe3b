import type { FindingCode, Severity, Step } from '../report.ts';

/** The steps of a check, in their order. */
export const STEPS = [
  'database',
  'graph',
  'directories',
  'layers',
  'leftovers',
  'mounts',
] as const satisfies readonly Step[];

interface Description {
  readonly step: Step;
  readonly severity: Severity;
  /** Whether it concerns what a layer holds, so that what descends from it has to be built anew too. */
  readonly damagesLayer?: true;
  /** What repair does about it; absent if it leaves it alone. */
  readonly repair?: string;
}

const SET_ASIDE = 'move it to lost+found';

/** Every finding by its code. Codes never change between major versions; docs/check.md tells more of each. */
export const FINDINGS = {
  'restore-interrupted': { step: 'database', severity: 'error' },
  'database-missing': { step: 'database', severity: 'error' },
  'not-a-database': { step: 'database', severity: 'error' },
  'database-unreadable': { step: 'database', severity: 'error' },
  'database-foreign': { step: 'database', severity: 'error' },
  'database-newer': { step: 'database', severity: 'warning' },
  'database-older': { step: 'database', severity: 'info' },
  'database-corrupt': { step: 'database', severity: 'error' },
  'index-damaged': { step: 'database', severity: 'error', repair: 'build the indexes anew' },
  'constraint-broken': { step: 'database', severity: 'error' },
  'foreign-key': { step: 'database', severity: 'error' },
  'schema-differs': { step: 'database', severity: 'error' },
  'wal-missing': { step: 'database', severity: 'error' },
  'wal-damaged': { step: 'database', severity: 'warning' },

  'missing-parent': { step: 'graph', severity: 'error', damagesLayer: true },
  'parent-not-committed': { step: 'graph', severity: 'error', damagesLayer: true },
  cycle: { step: 'graph', severity: 'error', damagesLayer: true },
  'kind-unknown': { step: 'graph', severity: 'error', damagesLayer: true },
  'kind-and-usage': { step: 'graph', severity: 'error', repair: 'make the usage fit the kind' },
  'chain-too-long': { step: 'graph', severity: 'error' },
  'live-and-journalled': { step: 'graph', severity: 'error', repair: 'take it out of the removal journal' },
  'high-water-low': { step: 'graph', severity: 'error', repair: 'raise the high-water mark' },

  'root-owner': { step: 'directories', severity: 'error' },
  'root-mode': { step: 'directories', severity: 'warning', repair: 'make it 0700' },
  'database-mode': { step: 'directories', severity: 'warning', repair: 'make it 0600' },
  'snapshots-missing': { step: 'directories', severity: 'error', repair: 'make the directory anew, empty' },
  'snapshots-filesystem': { step: 'directories', severity: 'error' },
  'directory-missing': { step: 'directories', severity: 'error', damagesLayer: true },
  'layer-missing': { step: 'directories', severity: 'error', damagesLayer: true },
  'work-missing': { step: 'directories', severity: 'error', repair: 'make it anew' },
  'not-a-directory': { step: 'directories', severity: 'error', damagesLayer: true, repair: SET_ASIDE },
  'directory-unknown': { step: 'directories', severity: 'warning', repair: SET_ASIDE },
  'entry-extra': { step: 'directories', severity: 'warning', repair: SET_ASIDE },
  skeleton: { step: 'directories', severity: 'info', repair: 'remove the empty directory' },
  'mounted-over': { step: 'directories', severity: 'error' },

  'seal-broken': { step: 'layers', severity: 'error', damagesLayer: true },
  'usage-differs': { step: 'layers', severity: 'error', damagesLayer: true },
  'blocks-differ': { step: 'layers', severity: 'info' },
  'seal-in-use': { step: 'layers', severity: 'warning' },
  'seal-unknown': { step: 'layers', severity: 'info' },
  'layer-unreadable': { step: 'layers', severity: 'error', damagesLayer: true },

  'removal-waiting': { step: 'leftovers', severity: 'info' },
  'reservation-abandoned': { step: 'leftovers', severity: 'info' },
  'volatile-lost': { step: 'leftovers', severity: 'error' },
  'open-long': { step: 'leftovers', severity: 'info' },

  'mount-of-damaged': { step: 'mounts', severity: 'error' },
  'mount-of-removed': { step: 'mounts', severity: 'warning' },
  'mount-of-unknown': { step: 'mounts', severity: 'warning' },
} as const satisfies Record<FindingCode, Description>;

/** What is known of a finding by its code alone. */
export function describe(code: FindingCode): Description {
  return FINDINGS[code];
}

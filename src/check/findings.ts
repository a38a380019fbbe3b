/** The steps of a check, in their order. */
export const STEPS = ['database', 'graph', 'directories', 'layers', 'leftovers', 'mounts'] as const;

export type Step = (typeof STEPS)[number];

/** `error`: something is damaged. `warning`: something may be. `info`: worth knowing. */
export type Severity = 'error' | 'warning' | 'info';

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
} as const satisfies Record<string, Description>;

export type FindingCode = keyof typeof FINDINGS;

/** What is known of a finding by its code alone. */
export function describe(code: FindingCode): Description {
  return FINDINGS[code];
}

/** Something that a check found. */
export interface Finding {
  readonly code: FindingCode;
  readonly step: Step;
  readonly severity: Severity;
  /** What was found, in a sentence. */
  readonly message: string;
  /** The key or name of the snapshot that it concerns; `null` if none. */
  readonly snapshot: string | null;
  readonly id: number | null;
  /** Where on disk; bytes that are no UTF-8 are shown as replacement characters. */
  readonly path: string | null;
  /** What repair would do about it; `null` if it leaves it alone. */
  readonly repair: string | null;
}

/** What came of a step. */
export interface StepResult {
  readonly step: Step;
  /** `partial`: the time was over before all was looked at. */
  readonly state: 'done' | 'partial' | 'skipped';
  /** Why it was skipped or is partial. */
  readonly reason?: string;
  /** How many things were looked at: messages of SQLite's, rows, directories, files, entries or mounts. */
  readonly checked: number;
}

/** A snapshot whose layer, or that of one it stands on, is damaged: it has to be removed, and built anew. */
export interface Rebuild {
  readonly id: number;
  readonly name: string;
  readonly kind: string;
  /** The snapshot with the damage: itself, or the nearest ancestor that has some. */
  readonly because: string;
}

/** Something that repair did, or would do. */
export interface Repair {
  readonly code: FindingCode;
  readonly snapshot: string | null;
  readonly path: string | null;
  /** What it does, in a few words. */
  readonly action: string;
  /** `planned` in a dry run; `gone` if the finding was not there any more under the lock. */
  readonly outcome: 'planned' | 'done' | 'gone' | 'refused';
  /** Why it was refused, or where something was set aside. */
  readonly detail?: string;
}

/** What a check came to. */
export interface Report {
  readonly root: string;
  /**
   * `clean`: no error was found. `repaired`: none is left. `damaged`: there are errors. `incomplete`: no error was found,
   * but not all could be looked at.
   */
  readonly status: 'clean' | 'repaired' | 'damaged' | 'incomplete';
  /** What was found; after a repair, what is left. */
  readonly findings: readonly Finding[];
  readonly steps: readonly StepResult[];
  /** What has to be built anew, in the order of ids. */
  readonly rebuild: readonly Rebuild[];
  /** What repair did, or would do. */
  readonly repairs: readonly Repair[];
}

/** How far a check has come. */
export interface CheckProgress {
  readonly step: Step;
  /** How many things of this step were looked at, and of how many, if that is known. */
  readonly checked: number;
  readonly total: number | null;
}

/** What is checked, and how. */
export interface CheckOptions {
  /** Leave out the walk over the layers, and let SQLite leave out what takes long. */
  quick?: boolean | undefined;
  /** Read every byte of the layers whose seal covers contents. */
  contents?: boolean | undefined;
  /**
   * Check only these steps, and only these snapshots: whatever is not the name of a step is a key or name. `name:` may
   * stand before one, and has to if it is called like a step.
   */
  only?: readonly string[] | undefined;
  /** End after so many milliseconds, with what was found until then. */
  maxDuration?: number | undefined;
  /** Tell of active snapshots and views that were made longer ago than so many milliseconds. */
  olderThan?: number | undefined;
  /** Repair what can be repaired, and check once more. */
  repair?: boolean | undefined;
  /** With `repair`: only tell what it would do. */
  dryRun?: boolean | undefined;
  /** Ends the check: it throws the signal's reason. */
  signal?: AbortSignal;
  onProgress?: (progress: CheckProgress) => void;
}

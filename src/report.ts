/** The steps of a check, in their order. */
export type Step = 'database' | 'graph' | 'directories' | 'layers' | 'leftovers' | 'mounts';

/** `error`: something is damaged. `warning`: something may be. `info`: worth knowing. */
export type Severity = 'error' | 'warning' | 'info';

/** What a check can find. Codes never change between major versions; docs/check.md describes each. */
export type FindingCode =
  | 'restore-interrupted'
  | 'database-missing'
  | 'not-a-database'
  | 'database-unreadable'
  | 'wrong-type'
  | 'database-foreign'
  | 'database-newer'
  | 'database-older'
  | 'database-oversized'
  | 'database-corrupt'
  | 'index-damaged'
  | 'constraint-broken'
  | 'foreign-key'
  | 'schema-differs'
  | 'wal-missing'
  | 'wal-damaged'
  | 'missing-parent'
  | 'parent-not-committed'
  | 'cycle'
  | 'kind-unknown'
  | 'kind-and-usage'
  | 'chain-too-long'
  | 'live-and-journalled'
  | 'high-water-low'
  | 'high-water-high'
  | 'root-replaceable'
  | 'root-owner'
  | 'root-mode'
  | 'database-mode'
  | 'snapshots-missing'
  | 'snapshots-link'
  | 'snapshots-filesystem'
  | 'directory-missing'
  | 'layer-missing'
  | 'work-missing'
  | 'not-a-directory'
  | 'directory-unknown'
  | 'entry-extra'
  | 'skeleton'
  | 'mounted-over'
  | 'seal-broken'
  | 'usage-differs'
  | 'blocks-differ'
  | 'seal-in-use'
  | 'seal-unknown'
  | 'layer-unreadable'
  | 'whiteout-in-base'
  | 'removal-waiting'
  | 'reservation-abandoned'
  | 'run-abandoned'
  | 'volatile-lost'
  | 'open-long'
  | 'mount-of-damaged'
  | 'mount-of-removed'
  | 'mount-of-unknown';

/** Something that a check found. */
export interface Finding {
  readonly code: FindingCode;
  readonly step: Step;
  readonly severity: Severity;
  /** What was found, in a sentence. */
  readonly message: string;
  /** The key or name of the snapshot that it concerns, if any. */
  readonly snapshot: string | null;
  readonly id: number | null;
  /** Where on disk; bytes that are not UTF-8 are shown as replacement characters. */
  readonly path: string | null;
  /** What repair would do about it; `null` if it leaves it alone. */
  readonly repair: string | null;
}

/** The outcome of a step. */
export interface StepResult {
  readonly step: Step;
  /** `partial`: the time limit was reached before everything was checked. */
  readonly state: 'done' | 'partial' | 'skipped';
  /** Why it was skipped or is partial. */
  readonly reason?: string;
  /** How many things were checked: SQLite's messages, rows, directories, files, entries or mounts. */
  readonly checked: number;
}

/** A snapshot whose layer, or the layer of one of its ancestors, is damaged: it has to be removed and built anew. */
export interface Rebuild {
  readonly id: number;
  readonly name: string;
  readonly kind: string;
  /** The snapshot with the damage: itself, or its nearest damaged ancestor. */
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

/** The result of a check. */
export interface Report {
  readonly root: string;
  /**
   * `clean`: no error was found. `repaired`: all errors were repaired. `damaged`: there are errors. `incomplete`: no
   * error was found, but not everything could be checked.
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
  /** How many things of this step were checked, and of how many, if that is known. */
  readonly checked: number;
  readonly total: number | null;
}

/** What is checked, and how. */
export interface CheckOptions {
  /** Leave out the walk over the layers and SQLite's slow checks (default: false). */
  quick?: boolean | undefined;
  /** Read every byte of the layers whose seal covers contents (default: false). */
  contents?: boolean | undefined;
  /**
   * Check only these steps and these snapshots (default: all). What is not the name of a step is a key or name; a key
   * or name that is also the name of a step is written with `name:` before it.
   */
  only?: readonly string[] | undefined;
  /** Stop after so many milliseconds, with what was found until then (default: no limit). */
  maxDuration?: number | undefined;
  /** Report active snapshots and views that are older than so many milliseconds (default: report none). */
  olderThan?: number | undefined;
  /** Repair what can be repaired, and check once more (default: false). */
  repair?: boolean | undefined;
  /** With `repair`: only report what it would do (default: false). */
  dryRun?: boolean | undefined;
  /** Ends the check, which then throws the signal's reason. */
  signal?: AbortSignal;
  onProgress?: (progress: CheckProgress) => void;
}

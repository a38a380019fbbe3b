import type { Severity } from '../report.ts';

/** The order of repairs: each phase may rely on those before it. */
export const REPAIR_PHASES = [
  // Before SQLite opens the database for writing: it then drops the part of a log that it cannot read.
  'files',
  'schema',
  'indexes',
  'rows',
  'snapshots directory',
  // What is in the way is moved before directories are created in its place.
  'move',
  'create',
] as const;

export type RepairPhase = (typeof REPAIR_PHASES)[number];

/** What repair does about a finding. */
export interface RepairDescription {
  /** What it does, as an imperative. */
  readonly sentence: string;
  readonly phase: RepairPhase;
  /** The sentence for one finding, where more can be said. */
  exactly?(facts: object): string;
  /** Which findings of the code are repaired (default: all). */
  when?(facts: object): boolean;
  /** Not in the exported `FINDINGS`, which has never had it. */
  readonly unlisted?: true;
}

/**
 * All that is known about a finding in advance. Beside each step there is a table of those that it can report.
 *
 * The functions are declared as methods so that each can require facts of its own. `problem` makes its callers give
 * what they require.
 */
export interface Description {
  readonly severity: Severity;
  /** The severity of one finding, where it depends on the facts. */
  severityOf?(facts: object): Severity;
  /** What was found, in a sentence. */
  message(facts: object): string;
  /** Whether it means that the layer is damaged, so that its descendants have to be rebuilt too. */
  readonly damagesLayer?: true;
  readonly repair?: RepairDescription;
}

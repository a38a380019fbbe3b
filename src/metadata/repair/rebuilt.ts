/** A row that was read from a damaged database and cannot be used. */
export interface LostRow {
  readonly id: number;
  readonly name: string | null;
  readonly why: string;
}

/** An entry of a backup's removal journal that was left out. */
export interface LeftRemoval {
  readonly id: number;
  readonly part: string;
  readonly state: string;
}

/** What a new database was made of. */
export interface Rebuilt {
  /** How many snapshots it has. */
  readonly snapshots: number;
  readonly lost: readonly LostRow[];
  /** The backup's removal journal. The directories that it names are not going to be deleted. */
  readonly journal: readonly LeftRemoval[];
}

import type { Inspector, SeenRemoval, SeenSnapshot } from '../metadata/repair/inspector.ts';
import { quote } from '../quote.ts';

/** The rows of the database that the steps go by, all of one moment. */
export class Rows {
  /** The snapshots by id, in the order of ids. */
  readonly snapshots: ReadonlyMap<number, SeenSnapshot>;
  /** The entries of the removal journal by id. */
  readonly removals: ReadonlyMap<number, readonly SeenRemoval[]>;
  /** The highest id that was ever assigned; `undefined` if the database does not record it. */
  readonly highWater: number | undefined;

  /** The id after which SQLite goes on by itself; 0 if it is not recorded. */
  readonly sequence: number;

  /** Takes the rows; none if the database cannot be read. */
  constructor(
    snapshots: Iterable<SeenSnapshot> = [],
    removals: Iterable<SeenRemoval> = [],
    highWater?: number,
    sequence = 0,
  ) {
    this.snapshots = new Map([...snapshots].map((row) => [row.id, row]));
    const byId = new Map<number, SeenRemoval[]>();
    for (const removal of removals) byId.set(removal.id, [...(byId.get(removal.id) ?? []), removal]);
    this.removals = byId;
    this.highWater = highWater;
    this.sequence = sequence;
  }

  /** @throws {SnapshotError} DATA_LOSS if they cannot all be read */
  static read(inspector: Inspector): Rows {
    return inspector.atOnce(
      () =>
        new Rows(inspector.snapshots(), inspector.removals(), inspector.highWater(), inspector.sequence()),
    );
  }

  /** The name of a snapshot; its id if there is no such row. */
  nameOf(id: number): string {
    return this.snapshots.get(id)?.name ?? `id ${id}`;
  }

  /** A snapshot for a message: its name in quotes; its id if there is no such row. */
  quote(id: number): string {
    const row = this.snapshots.get(id);
    return row === undefined ? `id ${id}` : quote(row.name);
  }
}

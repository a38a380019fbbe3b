import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Kind, Labels, SnapshotRecord, Usage } from '../snapshot.ts';

/** Id, kind, parent and usage of a snapshot: enough to decide what may be done with it. */
export interface Found {
  readonly id: number;
  readonly name: string;
  readonly kind: Kind;
  readonly parentId: number | null;
  /** As measured at commit; `null` while it is open. */
  readonly usage: Usage | null;
  /** The boot in which a volatile snapshot was last mounted, or else prepared; `null` if it is not volatile. */
  readonly volatileBoot: string | null;
}

/** An entry of the removal journal: a directory that is to be deleted from disk. */
export interface Removal {
  readonly id: number;
  readonly part: 'all' | 'work';
}

/** What the rows say of a snapshot, and the name of its parent. */
export interface FoundSnapshot extends Found {
  /** `null` also if the row of the parent is missing, in a damaged database. */
  readonly parent: string | null;
}

/** A row of a look-up by name. */
export type FoundRow = [
  id: number,
  kind: string,
  parentId: number | null,
  parent: string | null,
  inodes: number | null,
  size: number | null,
  volatileBoot: string | null,
];

/** The snapshot that a row of a look-up stands for. */
export function toFound(name: string, row: FoundRow): FoundSnapshot {
  const [id, kind, parentId, parent, inodes, size, volatileBoot] = row;
  const usage = inodes === null || size === null ? null : { inodes, size };
  return { id, name, kind: toKind(kind, name), parentId, parent, usage, volatileBoot };
}

/** The columns of a record, from `snapshot` and, where there is one, its row as `parent`. */
export const RECORD = `
  snapshot.id,
  snapshot.name,
  snapshot.kind,
  parent.name as parent,
  snapshot.created_us,
  snapshot.updated_us,
  snapshot.seal,
  snapshot.in_use,
  snapshot.volatile_boot is not null as volatile,
  (select json_group_object(key, value) from label where snapshot_id = snapshot.id) as labels`;

/** A row of `RECORD`, as an array: an object for each row would cost more than reading it. */
export type RecordRow = [
  id: number,
  name: string,
  kind: string,
  parent: string | null,
  createdUs: number,
  updatedUs: number,
  seal: string | null,
  inUse: 0 | 1 | null,
  volatile: 0 | 1,
  labels: string,
];

/** Checks a kind that was read: a database whose rules were switched off can hold anything. */
function toKind(kind: string, name: string): Kind {
  if (kind === 'active' || kind === 'view' || kind === 'committed') return kind;
  throw new SnapshotError('DATA_LOSS', `snapshot ${quote(name)} has unknown kind ${quote(kind)}`);
}

/** What kind a snapshot is of, for a message: `is not active but a view`. */
export function describeKind({ kind }: Found): string {
  return kind === 'view' ? 'a view' : kind;
}

/** The record that a row stands for. */
export function toRecord(row: RecordRow): SnapshotRecord {
  const [id, name, kind, parent, createdUs, updatedUs, seal, inUse, volatile, labels] = row;
  return {
    id,
    name,
    kind: toKind(kind, name),
    parent,
    labels: JSON.parse(labels) as Labels,
    created: new Date(createdUs / 1000),
    updated: new Date(updatedUs / 1000),
    createdUs,
    updatedUs,
    seal,
    inUse: inUse === null ? null : inUse === 1,
    volatile: volatile === 1,
  };
}

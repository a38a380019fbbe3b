import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import type { Kind, Labels, SnapshotRecord } from '../snapshot.ts';

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
export function toKind(kind: string, name: string): Kind {
  if (kind === 'active' || kind === 'view' || kind === 'committed') return kind;
  throw new SnapshotError('DATA_LOSS', `snapshot ${quote(name)} is of no known kind but ${quote(kind)}`);
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

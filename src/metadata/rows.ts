import { SnapshotError } from '../errors.ts';
import { quote } from '../names.ts';
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

/** A row of `RECORD`. */
export interface RecordRow {
  id: number;
  name: string;
  kind: string;
  parent: string | null;
  created_us: number;
  updated_us: number;
  seal: string | null;
  in_use: 0 | 1 | null;
  volatile: 0 | 1;
  labels: string;
}

/** Checks a kind that was read: a database whose rules were switched off can hold anything. */
export function toKind(kind: string, name: string): Kind {
  if (kind === 'active' || kind === 'view' || kind === 'committed') return kind;
  throw new SnapshotError('DATA_LOSS', `snapshot ${quote(name)} is of no known kind but ${quote(kind)}`);
}

/** The record that a row stands for. */
export function toRecord(row: RecordRow): SnapshotRecord {
  return {
    id: row.id,
    name: row.name,
    kind: toKind(row.kind, row.name),
    parent: row.parent,
    labels: JSON.parse(row.labels) as Labels,
    created: new Date(row.created_us / 1000),
    updated: new Date(row.updated_us / 1000),
    createdUs: row.created_us,
    updatedUs: row.updated_us,
    seal: row.seal,
    inUse: row.in_use === null ? null : row.in_use === 1,
    volatile: row.volatile === 1,
  };
}

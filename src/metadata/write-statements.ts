import type { Database } from 'better-sqlite3';
import type { Removal } from './rows.ts';
import { prepareCommand, prepareValues } from './statement.ts';

// The id is not left to AUTOINCREMENT, so that nobody's edit of sqlite_sequence can stand in the way.
const INSERT_OPEN = `
insert into snapshot (id, name, kind, parent_id, created_us, updated_us, volatile_boot)
values ((select id + 1 from high_water), :name, :kind, :parentId, :us, :us, :volatileBoot)
returning id`;

const INSERT_COMMITTED = `
insert into snapshot (id, name, kind, parent_id, created_us, updated_us, inodes, size, seal, in_use)
values (:id, :name, 'committed', :parentId, :us, :us, :inodes, :size, :seal, :inUse)`;

const COMMIT = `
update snapshot
   set name = :name,
       kind = 'committed',
       parent_id = :parentId,
       created_us = :us,
       updated_us = :us,
       inodes = :inodes,
       size = :size,
       seal = :seal,
       in_use = :inUse,
       volatile_boot = null
 where id = :id`;

const TOUCH = `
update snapshot
   set updated_us = ?
 where id = ?`;

const SET_VOLATILE_BOOT = `
update snapshot
   set volatile_boot = ?
 where id = ?`;

const DELETE_SNAPSHOT = `
delete from snapshot
 where id = ?`;

const INSERT_LABELS = `
insert into label (snapshot_id, key, value)
select ?, key, value from json_each(?)`;

const SET_LABEL = `
insert into label (snapshot_id, key, value)
values (?, ?, ?)
on conflict (snapshot_id, key) do update set value = excluded.value`;

const DELETE_LABEL = `
delete from label
 where snapshot_id = ?
   and key = ?`;

const DELETE_LABELS = `
delete from label
 where snapshot_id = ?`;

const RESERVE_ID = `
insert into removal (id, part, state)
values ((select id + 1 from high_water), 'all', 'reserved')
returning id`;

const ABANDON_ID = `
update removal
   set state = 'deleting'
 where id = ?
   and part = 'all'
   and state = 'reserved'`;

const FORGET_REMOVAL = `
delete from removal
 where id = ?
   and part = ?
   and state = 'deleting'`;

/** The values of a new row. */
export interface OpenValues {
  readonly name: string;
  readonly kind: 'active' | 'view';
  readonly parentId: number | null;
  readonly us: number;
  readonly volatileBoot: string | null;
}

/** The values of a row that is committed. */
export interface CommittedValues {
  readonly id: number;
  readonly name: string;
  readonly parentId: number | null;
  readonly us: number;
  readonly inodes: number;
  readonly size: number;
  readonly seal: string | null;
  readonly inUse: 0 | 1 | null;
}

/** Prepares the statements that write, once for a connection. */
// oxlint-disable-next-line typescript/explicit-module-boundary-types -- Each statement's type stands beside it.
export function prepareWrites(db: Database) {
  return {
    insertOpen: prepareValues<[OpenValues], number>(db, INSERT_OPEN),
    insertCommitted: prepareCommand<[CommittedValues]>(db, INSERT_COMMITTED),
    commit: prepareCommand<[CommittedValues]>(db, COMMIT),
    touch: prepareCommand<[us: number, id: number]>(db, TOUCH),
    setVolatileBoot: prepareCommand<[boot: string, id: number]>(db, SET_VOLATILE_BOOT),
    deleteSnapshot: prepareCommand<[id: number]>(db, DELETE_SNAPSHOT),
    insertLabels: prepareCommand<[id: number, labelsAsJson: string]>(db, INSERT_LABELS),
    setLabel: prepareCommand<[id: number, key: string, value: string]>(db, SET_LABEL),
    deleteLabel: prepareCommand<[id: number, key: string]>(db, DELETE_LABEL),
    deleteLabels: prepareCommand<[id: number]>(db, DELETE_LABELS),
    reserveId: prepareValues<[], number>(db, RESERVE_ID),
    abandonId: prepareCommand<[id: number]>(db, ABANDON_ID),
    forgetRemoval: prepareCommand<[id: number, part: Removal['part']]>(db, FORGET_REMOVAL),
  };
}

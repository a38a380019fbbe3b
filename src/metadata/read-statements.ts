import type { Database } from 'better-sqlite3';
import { type FoundRow, RECORD, type RecordRow, type Removal } from './rows.ts';
import { prepareQuery, prepareTuples, prepareValues } from './statement.ts';

const FIND = `
select snapshot.id,
       snapshot.kind,
       snapshot.parent_id,
       parent.name as parent,
       snapshot.inodes,
       snapshot.size,
       snapshot.volatile_boot
  from snapshot
  left join snapshot as parent on parent.id = snapshot.parent_id
 where snapshot.name = ?`;

const STAT = `
select ${RECORD}
  from snapshot
  left join snapshot as parent on parent.id = snapshot.parent_id
 where snapshot.name = ?`;

const STAT_BY_ID = `
select ${RECORD}
  from snapshot
  left join snapshot as parent on parent.id = snapshot.parent_id
 where snapshot.id = ?`;

const CHILDREN = `
select ${RECORD}
  from snapshot
  join snapshot as parent on parent.id = snapshot.parent_id
 where snapshot.parent_id = ?
 order by snapshot.id`;

const FIRST_CHILD = `
select name
  from snapshot
 where parent_id = ?
 limit 1`;

// Upwards, nearest first. The queue of the recursion holds one row at any time, so the rows come in the order of the
// chain. A cycle in a damaged database ends it, since UNION takes each row once.
const CHAIN = `
with recursive chain (id, parent_id) as (
  select id, parent_id from snapshot where id = ?
  union
  select snapshot.id, snapshot.parent_id
    from chain
    join snapshot on snapshot.id = chain.parent_id
)
select ${RECORD}
  from chain
  cross join snapshot on snapshot.id = chain.id
  left join snapshot as parent on parent.id = snapshot.parent_id`;

// One string, since a row for each layer would cost as much again to bring over. The limit is a little more than
// overlayfs can stack, and ends a cycle too.
const LOWERS = `
with recursive chain (id, parent_id) as (
  select id, parent_id from snapshot where id = ?
  union all
  select snapshot.id, snapshot.parent_id
    from chain
    join snapshot on snapshot.id = chain.parent_id
   limit 512
)
select group_concat(id, ?) from chain`;

// The cross join keeps this order: for the sake of the sorting, SQLite would rather go through all snapshots.
const DESCENDANTS = `
with recursive descendant (id) as (
  select id from snapshot where parent_id = ?
  union
  select snapshot.id
    from descendant
    join snapshot on snapshot.parent_id = descendant.id
)
select ${RECORD}
  from descendant
  cross join snapshot on snapshot.id = descendant.id
  left join snapshot as parent on parent.id = snapshot.parent_id
 order by snapshot.id`;

const REMOVALS = `
select id, part
  from removal
 where state = 'deleting'
   and id > ?
 order by id, part
 limit ?`;

const IS_DELETING = `
select 1
  from removal
 where id = ?
   and part = ?
   and state = 'deleting'`;

const PENDING_REMOVALS = `
select count(*)
  from removal
 where state = 'deleting'`;

const RESERVATIONS = `
select id
  from removal
 where state = 'reserved'
 order by id`;

const IS_RESERVED = `
select 1
  from removal
 where id = ?
   and part = 'all'
   and state = 'reserved'`;

const HIGH_WATER = `select id from high_water`;

const TREE = `select tree from snapshot_tree`;

/** Prepares the statements that read, once for a connection. */
// oxlint-disable-next-line typescript/explicit-module-boundary-types -- Each statement's type stands beside it.
export function prepareReads(db: Database) {
  return {
    find: prepareTuples<[name: string], FoundRow>(db, FIND),
    stat: prepareTuples<[name: string], RecordRow>(db, STAT),
    statById: prepareTuples<[id: number], RecordRow>(db, STAT_BY_ID),
    children: prepareTuples<[id: number], RecordRow>(db, CHILDREN),
    firstChild: prepareValues<[id: number], string>(db, FIRST_CHILD),
    chain: prepareTuples<[id: number | null], RecordRow>(db, CHAIN),
    lowers: prepareValues<[id: number, separator: string], string | null>(db, LOWERS),
    descendants: prepareTuples<[id: number], RecordRow>(db, DESCENDANTS),
    removals: prepareQuery<[afterId: number, limit: number], Removal>(db, REMOVALS),
    isDeleting: prepareValues<[id: number, part: Removal['part']], 1>(db, IS_DELETING),
    pendingRemovals: prepareValues<[], number>(db, PENDING_REMOVALS),
    reservations: prepareValues<[], number>(db, RESERVATIONS),
    isReserved: prepareValues<[id: number], 1>(db, IS_RESERVED),
    highWater: prepareValues<[], number>(db, HIGH_WATER),
    tree: prepareValues<[], string>(db, TREE),
  };
}

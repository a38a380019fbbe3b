import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Outcome, attackAll } from '../support/attack.ts';
import { hasShell, mustRun, queryShell, runShell } from '../support/shell.ts';

// The rules hold in a client that knows nothing of them: the sqlite3 shell, which starts with foreign keys
// off and may be an older SQLite than the driver's.

const migrations = readdirSync(new URL('../../migrations/', import.meta.url))
  .toSorted()
  .map((name) => readFileSync(new URL(`../../migrations/${name}`, import.meta.url), 'utf8'))
  .join('\n');

const openColumns = 'snapshot (id, name, kind, parent_id, created_us, updated_us)';
const sealedColumns = 'snapshot (id, name, kind, parent_id, created_us, updated_us, inodes, size)';

/** Inserts snapshots that are open, each given as `id, name, kind, parent_id`. */
function open(...rows: string[]): string {
  return `insert into ${openColumns} values ${rows.map((row) => `(${row}, 1, 1)`).join(', ')}`;
}

/** Inserts snapshots with usage, given in the same way. */
function sealed(...rows: string[]): string {
  return `insert into ${sealedColumns} values ${rows.map((row) => `(${row}, 1, 1, 1, 1)`).join(', ')}`;
}

/** What a commit sets beside the name and the parent. */
const flip = `kind = 'committed', inodes = 1, size = 4096`;

// base ── layer ─┬─ top      committed, its work directory still to be deleted
//                ├─ work     active          scratch  active, no parent
//                └─ look     view            bare     view, no parent
// Id 8 is deleted, its directory not yet; id 9 is reserved.
const fixture = `
  insert into ${sealedColumns} values
    (1, 'base', 'committed', null, 1000001, 1000001, 10, 40960),
    (2, 'layer', 'committed', 1, 2000002, 2000002, 2, 512);
  insert into ${openColumns} values
    (3, 'top-key', 'active', 2, 3, 3),
    (4, 'work', 'active', 2, 4, 4),
    (5, 'scratch', 'active', null, 5, 5),
    (6, 'look', 'view', 2, 6, 6),
    (7, 'bare', 'view', null, 7, 7),
    (8, 'gone', 'active', 2, 8, 8);
  update snapshot set name = 'top', ${flip}, seal = 'v1:00', in_use = 0 where id = 3;
  delete from snapshot where id = 8;
  insert into removal values (9, 'all', 'reserved');
  insert into label values (1, 'os', 'debian'), (1, 'arch', 'arm64'), (4, 'job', '17');
`;

const dumpRows = `.mode quote
select 'snapshot', * from snapshot order by id;
select 'label', * from label order by snapshot_id, key;
select 'removal', * from removal order by id, part;
select 'high_water', * from high_water order by only_row;
`;

const dump = `${dumpRows}select 'sqlite_sequence', rowid, * from sqlite_sequence order by rowid;
`;

/** What it tries, the statement, the error it has to end with, and what happened before, which is allowed. */
type Attack = readonly [tries: string, sql: string, refusal: RegExp, given?: string];

const noParent = /^a parent exists and is committed \(19\)$/;
const otherParent = /^a commit can only give a parent to a snapshot that has none \(19\)$/;
const frozen = /^only labels and updated_us of a snapshot change, except when it is committed \(19\)$/;
const badKind = /^kind is active, view or committed \(19\)$/;
const badFlip = /^kind only ever changes from active to committed \(19\)$/;
const idChanges = /^the id of a snapshot never changes \(19\)$/;
const idTaken = /^the id is taken \(19\)$/;
const nameTaken = /^the key or name is taken \(19\)$/;
const hasChildren = /^a snapshot with children cannot be deleted \(19\)$/;
const noSnapshot = /^a label has a snapshot \(19\)$/;
const usedTwice = /^an id is never used twice \(19\)$/;
const behind = /^sqlite_sequence is behind a reserved id \(19\)$/;
const full = /^database or disk is full \(13\)$/;
const oneMark = /^there is one high-water mark \(19\)$/;
const markGrows = /^the high-water mark only grows \(19\)$/;
const isLive = /^only the work directory of a live snapshot is ever deleted \(19\)$/;
const keepsWork = /^only a committed snapshot gives up its work directory \(19\)$/;
const journalled = /^the id is already in the removal journal \(19\)$/;
const wasUsed = /^only an id that was never used can be reserved \(19\)$/;
const badRemoval = /^a removal is of all or work, and reserved or deleting \(19\)$/;
const oneWay = /^a journalled removal only ever goes from reserved to deleting \(19\)$/;

const rule1: Attack[] = [
  ['an active snapshot on a missing parent', open(`null, 'new', 'active', 99`), noParent],
  ['a view on a missing parent', open(`null, 'new', 'view', 99`), noParent],
  ['a committed one on a missing parent', sealed(`null, 'new', 'committed', 99`), noParent],
  ['a reserved id on a missing parent', sealed(`9, 'new', 'committed', 99`), noParent],
  ['an active parent', open(`null, 'new', 'active', 4`), noParent],
  ['a view as parent', open(`null, 'new', 'active', 6`), noParent],
  ['a deleted parent', open(`null, 'new', 'active', 8`), noParent],
  ['a reserved parent', open(`null, 'new', 'active', 9`), noParent],
  ['parent 0', open(`null, 'new', 'active', 0`), noParent],
  [
    'parent -1, the id that a trigger sees before one is chosen',
    sealed(`null, 'new', 'committed', -1`),
    noParent,
  ],
  ['a snapshot that is its own parent', sealed(`10, 'new', 'committed', 10`), noParent],
  [
    'two that are parents of each other',
    sealed(`10, 'a', 'committed', 11`, `11, 'b', 'committed', 10`),
    noParent,
  ],
  [
    'a missing parent after a good row',
    open(`null, 'good', 'active', 2`, `null, 'bad', 'active', 99`),
    noParent,
  ],
  [
    'a row in the way and a missing parent',
    open(`null, 'new', 'active', 99`, `null, 'work', 'active', 2`),
    noParent,
  ],
  ['a commit onto a missing parent', `update snapshot set ${flip}, parent_id = 99 where id = 5`, noParent],
  ['a commit onto an active parent', `update snapshot set ${flip}, parent_id = 4 where id = 5`, noParent],
  ['a commit onto a view', `update snapshot set ${flip}, parent_id = 7 where id = 5`, noParent],
  ['a commit onto itself', `update snapshot set ${flip}, parent_id = 5 where id = 5`, noParent],
  [
    'two commits in one statement onto each other',
    `update snapshot set ${flip}, parent_id = case id when 5 then 10 else 5 end where id in (5, 10)`,
    noParent,
    `insert into ${openColumns} values (10, 'other', 'active', null, 1, 1);`,
  ],
  ['a commit onto another parent', `update snapshot set ${flip}, parent_id = 1 where id = 4`, otherParent],
  [
    'a commit onto a missing parent instead of its own',
    `update snapshot set ${flip}, parent_id = 99 where id = 4`,
    otherParent,
  ],
  [
    'a commit that drops the parent',
    `update snapshot set ${flip}, parent_id = null where id = 4`,
    otherParent,
  ],
  [
    'commits of which one drops the parent',
    `update snapshot set ${flip}, parent_id = null where kind = 'active'`,
    otherParent,
  ],
  ['a parent for an active one', `update snapshot set parent_id = 2 where id = 5`, frozen],
  ['another parent for an active one', `update snapshot set parent_id = 1 where id = 4`, frozen],
  ['no parent for an active one', `update snapshot set parent_id = null where id = 4`, frozen],
  ['another parent for a view', `update snapshot set parent_id = 1 where id = 6`, frozen],
  ['a committed one on its descendant', `update snapshot set parent_id = 3 where id = 1`, frozen],
  ['a committed one on itself', `update snapshot set parent_id = 1 where id = 1`, frozen],
  ['every one on itself', `update snapshot set parent_id = id`, frozen],
  ['a missing parent by id arithmetic', `update snapshot set parent_id = parent_id + 90`, frozen],
  [
    'an upsert that sets a parent',
    `${open(`5, 'scratch', 'active', null`)} on conflict (id) do update set parent_id = 5`,
    nameTaken,
  ],
];

const rule2: Attack[] = [
  [
    'committed to active',
    `update snapshot set kind = 'active', inodes = null, size = null where id = 1`,
    badFlip,
  ],
  [
    'committed to active, usage and all',
    `update snapshot set kind = 'active', inodes = null, size = null, seal = null, in_use = null where id = 3`,
    badFlip,
  ],
  [
    'committed to view',
    `update snapshot set kind = 'view', inodes = null, size = null where id = 1`,
    badFlip,
  ],
  ['active to view', `update snapshot set kind = 'view' where id = 4`, badFlip],
  ['view to active', `update snapshot set kind = 'active' where id = 6`, badFlip],
  ['a view that commits', `update snapshot set ${flip} where id = 6`, badFlip],
  ['a view without parent that commits', `update snapshot set ${flip}, parent_id = 1 where id = 7`, badFlip],
  ['everything that is open, committed', `update snapshot set ${flip} where kind <> 'committed'`, badFlip],
  ['active to a kind of its own', `update snapshot set kind = 'frozen' where id = 4`, badFlip],
  ['committed to the same in capitals', `update snapshot set kind = 'COMMITTED' where id = 1`, badFlip],
  ['a new snapshot of a kind of its own', open(`null, 'new', 'frozen', null`), badKind],
  ['a new snapshot of an empty kind', open(`null, 'new', '', null`), badKind],
  ['a new snapshot of a kind in capitals', sealed(`null, 'new', 'Committed', null`), badKind],
  [
    'an upsert back to active',
    `${sealed(`1, 'base', 'committed', null`)} on conflict (id) do update set kind = 'active', inodes = null, size = null`,
    nameTaken,
  ],
  ['a replacement by an active one', open(`null, 'layer', 'active', null`), nameTaken],
];

const rule3: Attack[] = [
  ['another name for a committed one', `update snapshot set name = 'renamed' where id = 1`, frozen],
  ['another name for an active one', `update snapshot set name = 'renamed' where id = 4`, frozen],
  ['another name for a view', `update snapshot set name = 'renamed' where id = 6`, frozen],
  ['a taken name for a committed one', `update snapshot set name = 'layer' where id = 3`, frozen],
  ['a taken name for an active one', `update snapshot set name = 'layer' where id = 4`, frozen],
  [
    'two names swapped',
    `update snapshot set name = case name when 'base' then 'top' else 'base' end where id in (1, 3)`,
    frozen,
  ],
  [
    'a name taken from a label',
    `update snapshot set name = label.value from label where label.snapshot_id = snapshot.id`,
    frozen,
  ],
  ['another time of creation', `update snapshot set created_us = 5 where id = 1`, frozen],
  ['another time of creation for an active one', `update snapshot set created_us = 5 where id = 4`, frozen],
  ['more inodes', `update snapshot set inodes = inodes + 1 where id = 1`, frozen],
  ['another size', `update snapshot set size = 0 where id = 1`, frozen],
  ['no usage', `update snapshot set inodes = null, size = null where id = 1`, frozen],
  ['usage for an active one', `update snapshot set inodes = 1, size = 1 where id = 4`, frozen],
  ['a seal where there is none', `update snapshot set seal = 'v1:ff' where id = 1`, frozen],
  ['another seal', `update snapshot set seal = 'v1:ff' where id = 3`, frozen],
  ['no seal', `update snapshot set seal = null where id = 3`, frozen],
  ['another in_use', `update snapshot set in_use = 1 where id = 3`, frozen],
  ['no in_use', `update snapshot set in_use = null where id = 3`, frozen],
  ['a second commit of the same', `update snapshot set ${flip}, name = 'again' where id = 3`, frozen],
  [
    'a change of all after one that is allowed',
    `update snapshot set updated_us = 9, size = case id when 3 then 1 else size end`,
    frozen,
  ],
  ['another id for a committed one', `update snapshot set id = 50 where id = 1`, idChanges],
  ['another id for an active one', `update snapshot set id = 50 where id = 4`, idChanges],
  ['another rowid', `update snapshot set rowid = 50 where id = 3`, idChanges],
  ['another _rowid_', `update snapshot set _rowid_ = 50 where id = 3`, idChanges],
  ['another oid', `update snapshot set oid = 50 where id = 3`, idChanges],
  ['a taken id', `update snapshot set id = 3 where id = 4`, idChanges],
  ['a taken rowid', `update snapshot set rowid = 3 where id = 4`, idChanges],
  ['a reserved id', `update snapshot set id = 9 where id = 4`, idChanges],
  ['a deleted id', `update snapshot set rowid = 8 where id = 4`, idChanges],
  ['another id in the commit', `update snapshot set ${flip}, id = 50 where id = 5`, idChanges],
  ['every id moved', `update snapshot set id = id + 100`, idChanges],
  ['every rowid moved down', `update snapshot set rowid = rowid - 1`, idChanges],
  ['a commit under a taken name', `update snapshot set ${flip}, name = 'base' where id = 4`, nameTaken],
  ['a commit under a taken key', `update snapshot set ${flip}, name = 'look' where id = 4`, nameTaken],
  [
    'two commits under one name',
    `update snapshot set ${flip}, name = 'both' where kind = 'active'`,
    nameTaken,
  ],
  ['a taken name', sealed(`null, 'top', 'committed', null`), nameTaken],
  ['a taken key', open(`null, 'work', 'active', null`), nameTaken],
  ['a taken name with a reserved id', sealed(`9, 'top', 'committed', null`), nameTaken],
  [
    'one name twice in a statement',
    open(`null, 'new', 'active', null`, `null, 'new', 'view', null`),
    nameTaken,
  ],
  ['a taken name and the id of another', sealed(`1, 'top', 'committed', null`), nameTaken],
  ['a taken id', sealed(`3, 'new', 'committed', null`), idTaken],
  ['the taken id of an active one', open(`4, 'new', 'active', null`), idTaken],
  ['a taken id as text', open(`'4', 'new', 'active', null`), idTaken],
  [
    'a taken rowid by its other name',
    `insert into snapshot (_rowid_, name, kind, created_us, updated_us) values (4, 'new', 'active', 1, 1)`,
    idTaken,
  ],
  ['one id twice in a statement', open(`10, 'one', 'active', null`, `10, 'two', 'active', null`), idTaken],
  [
    'an upsert that renames',
    `${sealed(`3, 'new', 'committed', null`)} on conflict (id) do update set name = 'renamed'`,
    idTaken,
  ],
  [
    'an upsert on the name that moves the id',
    `${sealed(`null, 'top', 'committed', null`)} on conflict (name) do update set id = 50`,
    nameTaken,
  ],
];

const rule4: Attack[] = [
  ['a base with children', `delete from snapshot where id = 1`, hasChildren],
  ['a layer with children', `delete from snapshot where name = 'layer'`, hasChildren],
  ['everything', `delete from snapshot`, hasChildren],
  ['a leaf and then a parent', `delete from snapshot where id in (2, 4, 7)`, hasChildren],
  ['a whole chain', `delete from snapshot where id in (select 3 union select 2 union select 1)`, hasChildren],
  ['a base, returning it', `delete from snapshot where id = 1 returning id`, hasChildren],
  [
    'a parent whose only child is a view',
    `delete from snapshot where id = 2`,
    hasChildren,
    `delete from snapshot where id in (3, 4);`,
  ],
  ['a parent replaced by a new one', sealed(`1, 'base', 'committed', null`), nameTaken],
  ['a parent replaced by name', sealed(`null, 'base', 'committed', null`), nameTaken],
  ['a parent replaced by id', sealed(`1, 'new', 'committed', null`), idTaken],
  ['a parent replaced by an update of the id', `update snapshot set id = 1 where id = 5`, idChanges],
  ['a parent replaced by a commit', `update snapshot set ${flip}, name = 'base' where id = 5`, nameTaken],
];

const rule5: Attack[] = [
  ['a label of nothing', `insert into label values (99, 'k', 'v')`, noSnapshot],
  ['a label of a deleted snapshot', `insert into label values (8, 'k', 'v')`, noSnapshot],
  ['a label of a reserved id', `insert into label values (9, 'k', 'v')`, noSnapshot],
  [
    'a label of nothing after a good one',
    `insert into label values (1, 'k', 'v'), (99, 'k', 'v')`,
    noSnapshot,
  ],
  ['a label moved to nothing', `update label set snapshot_id = 99 where snapshot_id = 4`, noSnapshot],
  ['a label moved to a deleted snapshot', `update label set snapshot_id = 8 where key = 'os'`, noSnapshot],
  [
    'every label moved',
    `update label set snapshot_id = snapshot_id + 3`,
    noSnapshot,
    `delete from snapshot where id = 7;`,
  ],
  [
    'an upsert that moves a label',
    `insert into label values (1, 'os', 'x') on conflict do update set snapshot_id = 99`,
    noSnapshot,
  ],
  [
    'an upsert of a label by its key',
    `insert into label values (4, 'job', 'x') on conflict (snapshot_id, key) do update set snapshot_id = 9, value = 'x'`,
    noSnapshot,
  ],
];

/** Nothing but 1, 2 and 3 is left, and nothing is to be deleted. The mark is at 9. */
const emptied = `delete from snapshot where id > 3;\ndelete from removal;`;
const automatic = open(`null, 'new', 'active', null`);

const rule6: Attack[] = [
  ['the id of a deleted snapshot', open(`8, 'new', 'active', null`), usedTwice],
  ['the id of a deleted snapshot, committed', sealed(`8, 'new', 'committed', 2`), usedTwice],
  ['the same as text', open(`'8', 'new', 'active', null`), usedTwice],
  ['the same as a real number', open(`8.0, 'new', 'active', null`), usedTwice],
  [
    'the same by rowid',
    `insert into snapshot (rowid, name, kind, created_us, updated_us) values (8, 'new', 'active', 1, 1)`,
    usedTwice,
  ],
  ['the same after a new one', open(`10, 'new', 'active', null`, `8, 'old', 'active', null`), usedTwice],
  ['descending ids', open(`12, 'new', 'active', null`, `11, 'old', 'active', null`), usedTwice],
  [
    'a deleted id whose directory is gone',
    open(`8, 'new', 'active', null`),
    usedTwice,
    `delete from removal where id = 8;`,
  ],
  [
    'a reservation that was given up',
    open(`9, 'new', 'active', null`),
    usedTwice,
    `delete from removal where id = 9;`,
  ],
  [
    'an id below a raised mark',
    open(`50, 'new', 'active', null`),
    usedTwice,
    `update high_water set id = 100;`,
  ],
  [
    'an automatic id after the sequence was lowered',
    automatic,
    usedTwice,
    `${emptied}\nupdate sqlite_sequence set seq = 0;`,
  ],
  [
    'an automatic id after the sequence was lowered by one',
    automatic,
    usedTwice,
    `${emptied}\nupdate sqlite_sequence set seq = 8;`,
  ],
  [
    'an automatic id after the sequence was deleted',
    automatic,
    usedTwice,
    `${emptied}\ndelete from sqlite_sequence;`,
  ],
  [
    'an automatic id after the sequence was made negative',
    automatic,
    usedTwice,
    `${emptied}\nupdate sqlite_sequence set seq = -5;`,
  ],
  [
    'an automatic id after the sequence was made text',
    automatic,
    usedTwice,
    `${emptied}\nupdate sqlite_sequence set seq = 'zero';`,
  ],
  [
    'an automatic id after the sequence was made null',
    automatic,
    usedTwice,
    `${emptied}\nupdate sqlite_sequence set seq = null;`,
  ],
  [
    'an automatic id with a second sequence',
    automatic,
    usedTwice,
    `${emptied}\ndelete from sqlite_sequence;\ninsert into sqlite_sequence values ('snapshot', 4), ('snapshot', 99);`,
  ],
  [
    'an automatic id above the highest',
    automatic,
    full,
    `update sqlite_sequence set seq = 9223372036854775807;`,
  ],
  ['an automatic id into a reservation', automatic, behind, `update sqlite_sequence set seq = 8;`],
  ['an automatic id that would be lower still', automatic, behind, `delete from sqlite_sequence;`],
  ['an automatic id with a sequence of text', automatic, behind, `update sqlite_sequence set seq = 'zzz';`],
  [
    'an automatic id with a second sequence that is high',
    automatic,
    behind,
    `update sqlite_sequence set seq = 8;\ninsert into sqlite_sequence values ('snapshot', 99);`,
  ],
  [
    'automatic ids, the second into a reservation',
    open(`null, 'one', 'active', null`, `null, 'two', 'active', null`),
    behind,
    `insert into removal values (11, 'all', 'reserved');\nupdate sqlite_sequence set seq = 9;`,
  ],
  ['a lower mark', `update high_water set id = 8`, markGrows],
  ['a mark of nothing', `update high_water set id = 0`, markGrows],
  ['a negative mark', `update high_water set id = -1 where only_row = 1`, markGrows],
  ['a mark under another key', `update high_water set only_row = 2`, markGrows],
  ['a mark under another rowid', `update high_water set rowid = 2, id = 100`, markGrows],
  ['no mark', `delete from high_water`, oneMark],
  ['no mark, by its key', `delete from high_water where only_row = 1`, oneMark],
  ['another mark', `insert into high_water (only_row, id) values (1, 0)`, oneMark],
  ['a higher one in its place', `insert into high_water (only_row, id) values (1, 100)`, oneMark],
  ['a second mark', `insert into high_water (only_row, id) values (2, 0)`, oneMark],
  ['a mark of its own choice of key', `insert into high_water (id) values (0)`, oneMark],
  [
    'an upsert of the mark',
    `insert into high_water (only_row, id) values (1, 0) on conflict (only_row) do update set id = 0`,
    oneMark,
  ],
];

const rule7: Attack[] = [
  ['a committed snapshot deleted from disk', `insert into removal values (3, 'all', 'deleting')`, isLive],
  ['a parent deleted from disk', `insert into removal values (1, 'all', 'deleting')`, isLive],
  ['an active one deleted from disk', `insert into removal values (4, 'all', 'deleting')`, isLive],
  ['a view deleted from disk', `insert into removal values (7, 'all', 'deleting')`, isLive],
  ['a live id as text', `insert into removal values ('4', 'all', 'deleting')`, isLive],
  [
    'a live id after one that is not',
    `insert into removal values (50, 'all', 'deleting'), (4, 'all', 'deleting')`,
    isLive,
  ],
  ['a live id, reserved', `insert into removal values (4, 'all', 'reserved')`, isLive],
  ['a live id with a part of its own', `insert into removal values (4, 'fs', 'deleting')`, badRemoval],
  ['the work of an active one', `insert into removal values (4, 'work', 'deleting')`, keepsWork],
  ['the work of a view', `insert into removal values (6, 'work', 'deleting')`, keepsWork],
  ['the work of a deleted one', `insert into removal values (8, 'work', 'deleting')`, keepsWork],
  ['the work of a reserved one', `insert into removal values (9, 'work', 'deleting')`, keepsWork],
  ['the work of nothing', `insert into removal values (50, 'work', 'deleting')`, keepsWork],
  [
    'the work of a committed and an active one',
    `insert into removal values (1, 'work', 'deleting'), (4, 'work', 'deleting')`,
    keepsWork,
  ],
  ['the work of a committed one, reserved', `insert into removal values (1, 'work', 'reserved')`, badRemoval],
  ['the work of a committed one again', `insert into removal values (3, 'work', 'deleting')`, journalled],
  ['what is deleted already', `insert into removal values (8, 'all', 'deleting')`, journalled],
  ['what is deleted already, reserved', `insert into removal values (8, 'all', 'reserved')`, journalled],
  ['a reservation that is deleted', `insert into removal values (9, 'all', 'deleting')`, journalled],
  ['a reservation again', `insert into removal values (9, 'all', 'reserved')`, journalled],
  [
    'a used id reserved',
    `insert into removal values (8, 'all', 'reserved')`,
    wasUsed,
    `delete from removal where id = 8;`,
  ],
  [
    'a given-up reservation reserved again',
    `insert into removal values (9, 'all', 'reserved')`,
    wasUsed,
    `delete from removal where id = 9;`,
  ],
  [
    'an id below a raised mark reserved',
    `insert into removal values (50, 'all', 'reserved')`,
    wasUsed,
    `update high_water set id = 100;`,
  ],
  ['id 0 reserved', `insert into removal values (0, 'all', 'reserved')`, wasUsed],
  [
    'id -1 reserved, for an automatic id to fall on',
    `insert into removal values (-1, 'all', 'reserved')`,
    wasUsed,
  ],
  ['a removal of a part of its own', `insert into removal values (50, 'fs', 'deleting')`, badRemoval],
  ['a removal in a state of its own', `insert into removal values (50, 'all', 'done')`, badRemoval],
  ['back from deleting to reserved', `update removal set state = 'reserved' where id = 8`, oneWay],
  ['everything back to reserved', `update removal set state = 'reserved'`, oneWay],
  ['a state of its own', `update removal set state = 'done' where id = 8`, oneWay],
  ['a reservation of another state', `update removal set state = 'done' where id = 9`, oneWay],
  ['a removal moved to a live id', `update removal set id = 4 where id = 8`, oneWay],
  ['a removal moved to an unknown id', `update removal set id = 50 where id = 8`, oneWay],
  [
    'a reservation moved to a live id, deleting',
    `update removal set id = 4, state = 'deleting' where id = 9`,
    oneWay,
  ],
  ['a reservation moved to an id that is deleting', `update removal set id = 8 where id = 9`, oneWay],
  ['every removal moved', `update removal set id = id - 1`, oneWay],
  ['work made all', `update removal set part = 'all' where id = 3`, oneWay],
  ['all made work', `update removal set part = 'work' where id = 8`, oneWay],
  [
    'an upsert back to reserved',
    `insert into removal values (8, 'all', 'reserved') on conflict (id, part) do update set state = 'reserved'`,
    journalled,
  ],
  [
    'an upsert onto a live id',
    `insert into removal values (8, 'all', 'deleting') on conflict do update set id = 4`,
    journalled,
  ],
  ['a journalled id as a snapshot', sealed(`8, 'new', 'committed', null`), usedTwice],
  [
    'a reservation that is deleting as a snapshot',
    sealed(`9, 'new', 'committed', null`),
    usedTwice,
    `update removal set state = 'deleting' where id = 9;`,
  ],
  [
    'an unknown far id, journalled, as a snapshot',
    open(`50, 'new', 'active', null`),
    usedTwice,
    `insert into removal values (50, 'all', 'deleting');`,
  ],
  [
    'one reservation for two snapshots',
    open(`9, 'one', 'active', null`, `9, 'two', 'active', null`),
    idTaken,
  ],
  [
    'a reservation used a second time',
    open(`9, 'two', 'active', null`),
    usedTwice,
    `insert into ${openColumns} values (9, 'one', 'active', null, 1, 1);\ndelete from snapshot where id = 9;\ndelete from removal where id = 9;`,
  ],
];

const rules: readonly (readonly [rule: string, attacks: readonly Attack[]])[] = [
  ['1: a parent exists and is committed, and there is no cycle', rule1],
  ['2: kind only ever changes from active to committed', rule2],
  ['3: what is committed does not change, and no id does', rule3],
  ['4: a snapshot with children cannot be deleted', rule4],
  ['5: a label has a snapshot', rule5],
  ['6: an id is never used twice', rule6],
  ['7: a live id is not deleted from disk, a journalled one not brought back', rule7],
];

/** What the CHECK constraints stop first, where they are not ignored. */
const rulesWithoutChecks: Attack[] = [
  ['id 0', open(`0, 'new', 'active', null`), usedTwice],
  ['id -1', open(`-1, 'new', 'active', null`), usedTwice],
  ['the lowest id there is', open(`-9223372036854775808, 'new', 'active', null`), usedTwice],
];

const check = /^CHECK constraint failed: /;
const notNull = /^NOT NULL constraint failed: /;
const datatype = /^(cannot store \w+ value in \w+ column|datatype mismatch)/;

/** What the columns themselves refuse. Here the client has not switched the CHECK constraints off. */
const constraints: Attack[] = [
  ['id 0', open(`0, 'new', 'active', null`), check],
  ['id -1', open(`-1, 'new', 'active', null`), check],
  ['an empty name', open(`null, '', 'active', null`), check],
  ['a name with NUL', open(`null, 'a' || char(0) || 'b', 'active', null`), check],
  ['a name of nothing but NUL', open(`null, char(0), 'active', null`), check],
  ['a name of 4,097 bytes', open(`null, printf('%.4097c', 'x'), 'active', null`), check],
  [
    'a name of 4,098 bytes in 2,049 characters',
    open(`null, replace(printf('%.2049c', 'x'), 'x', 'é'), 'active', null`),
    check,
  ],
  ['an empty name in the commit', `update snapshot set ${flip}, name = '' where id = 4`, check],
  ['no name', open(`null, null, 'active', null`), notNull],
  ['no kind', open(`null, 'new', null, null`), notNull],
  ['an active one that loses its kind', `update snapshot set kind = null where id = 4`, notNull],
  [
    'no time of creation',
    `insert into ${openColumns} values (null, 'new', 'active', null, null, 1)`,
    notNull,
  ],
  ['no time of update', `update snapshot set updated_us = null`, notNull],
  ['a name of bytes', open(`null, x'6162', 'active', null`), datatype],
  ['a parent by name', open(`null, 'new', 'active', 'base'`), datatype],
  ['an id of text', open(`'ten', 'new', 'active', null`), datatype],
  ['a time in words', `update snapshot set updated_us = 'now' where id = 1`, datatype],
  ['a time with a fraction', `update snapshot set updated_us = 1.5 where id = 1`, datatype],
  ['an id above 2^53 - 1', open(`9007199254740992, 'new', 'active', null`), check],
  ['a committed one without usage', open(`null, 'new', 'committed', null`), check],
  [
    'a committed one without size',
    `insert into ${sealedColumns} values (null, 'new', 'committed', null, 1, 1, 1, null)`,
    check,
  ],
  [
    'a committed one without inodes',
    `insert into ${sealedColumns} values (null, 'new', 'committed', null, 1, 1, null, 1)`,
    check,
  ],
  ['a commit without usage', `update snapshot set kind = 'committed' where id = 4`, check],
  ['an active one with usage', sealed(`null, 'new', 'active', null`), check],
  [
    'a view with a size',
    `insert into ${sealedColumns} values (null, 'new', 'view', null, 1, 1, null, 1)`,
    check,
  ],
  [
    'negative inodes',
    `insert into ${sealedColumns} values (null, 'new', 'committed', null, 1, 1, -1, 1)`,
    check,
  ],
  ['a negative size in the commit', `update snapshot set ${flip}, size = -1 where id = 4`, check],
  [
    'an active one with a seal',
    `insert into snapshot (name, kind, created_us, updated_us, seal) values ('new', 'active', 1, 1, 'v1')`,
    check,
  ],
  [
    'a view that is in use',
    `insert into snapshot (name, kind, created_us, updated_us, in_use) values ('new', 'view', 1, 1, 1)`,
    check,
  ],
  ['an in_use that is not 0 or 1', `update snapshot set ${flip}, in_use = 2 where id = 4`, check],
  ['a label with an empty key', `insert into label values (1, '', 'v')`, check],
  ['a label with an empty value', `insert into label values (1, 'k', '')`, check],
  ['a label emptied', `update label set value = '' where snapshot_id = 1`, check],
  [
    'a label of more than 4,096 bytes',
    `insert into label values (1, 'k', replace(printf('%.2048c', 'x'), 'x', 'é'))`,
    check,
  ],
  ['a label with NUL in its key', `insert into label values (1, 'k' || char(0), 'v')`, check],
  ['a label with NUL in its value', `insert into label values (1, 'k', 'v' || char(0))`, check],
  ['a label without value', `insert into label values (1, 'k', null)`, notNull],
  ['a removal without state', `insert into removal values (50, 'all', null)`, notNull],
  ['a removal of id 0', `insert into removal values (0, 'all', 'deleting')`, check],
  [
    'a removal of an id above 2^53 - 1',
    `insert into removal values (9007199254740992, 'all', 'reserved')`,
    check,
  ],
  ['a mark of null', `update high_water set id = null`, notNull],
  ['a mark of text', `update high_water set id = 'high'`, datatype],
];

/** What an upsert of each table would change, if it came to that. */
const upserts: Readonly<Record<string, string>> = {
  snapshot: 'id = excluded.id, name = excluded.name, kind = excluded.kind, parent_id = excluded.parent_id',
  label: 'snapshot_id = excluded.snapshot_id, value = excluded.value',
  removal: 'id = excluded.id, part = excluded.part, state = excluded.state',
  high_water: 'only_row = excluded.only_row, id = excluded.id',
};

const policies = ['abort', 'replace', 'fail', 'rollback'];

/** The ways of saying a statement: with every conflict policy but one, and an insert also as an upsert. */
function ways(sql: string): string[] {
  if (sql.startsWith('update ')) {
    return [sql, ...policies.map((policy) => sql.replace('update', `update or ${policy}`))];
  }
  const [, table] = /^insert into (\w+)/.exec(sql) ?? [];
  if (table === undefined || sql.includes(' on conflict ')) return [sql];
  return [
    sql,
    ...policies.map((policy) => sql.replace('insert', `insert or ${policy}`)),
    sql.replace('insert', 'replace'),
    `${sql} on conflict do nothing`,
    `${sql} on conflict do update set ${upserts[table]}`,
  ];
}

/** The remaining way, in which SQLite passes over a broken constraint without a word, but not over a trigger. */
function orIgnore(sql: string): string {
  return sql.replace(/^(insert|update)\b/, '$1 or ignore');
}

/** The attacks, each under what it tries. */
function named(attacks: readonly Attack[]): (readonly [string, Attack])[] {
  return attacks.map((attack) => [attack[0], attack]);
}

/** How a client can be set up. All of this is on offer in the shell. */
const plainClients = [
  ['foreign keys off, as the shell starts', 'pragma foreign_keys = off;'],
  ['foreign keys on', 'pragma foreign_keys = on;'],
] as const;

const recursiveClients = [
  ['foreign keys off, recursive triggers on', 'pragma foreign_keys = off; pragma recursive_triggers = on;'],
  ['foreign keys and recursive triggers on', 'pragma foreign_keys = on; pragma recursive_triggers = on;'],
] as const;

const carelessClients = [
  ['CHECK constraints ignored', 'pragma foreign_keys = off; pragma ignore_check_constraints = on;'],
  [
    'CHECK constraints ignored, recursive triggers on, order reversed',
    'pragma ignore_check_constraints = on; pragma recursive_triggers = on; pragma reverse_unordered_selects = on;',
  ],
] as const;

/** A function that does something when it is first called, and gives what came of that from then on. */
function once<T>(body: () => T): () => T {
  let done: { readonly value: T } | undefined;
  return () => (done ??= { value: body() }).value;
}

const lacking = hasShell ? '' : ' (skipped: there is no sqlite3 shell on this machine)';

describe.skipIf(!hasShell)(`the rules of the database, in the sqlite3 shell${lacking}`, () => {
  let directory: string;
  let template: string;
  let templateDump: string;
  let copies = 0;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'overlite-rules-'));
    template = join(directory, 'template.db');
    mustRun(template, `pragma journal_mode = wal;\n${migrations}\n${fixture}`);
    templateDump = mustRun(template, dump);
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  /** A database with the migrations only. */
  function emptyDatabase(): string {
    copies += 1;
    const file = join(directory, `${copies}.db`);
    mustRun(file, `pragma journal_mode = wal;\n${migrations}`);
    return file;
  }

  /** A database with the fixture above. The shell has closed the template, so that it has no WAL. */
  function database(): string {
    copies += 1;
    const file = join(directory, `${copies}.db`);
    copyFileSync(template, file);
    return file;
  }

  /** Makes an attempt of each attack in one shell; the function that it returns finds what came of one. */
  function attack(
    settings: string,
    attacks: readonly Attack[],
    toStatements: (sql: string) => string[],
    look = dump,
  ): { outcomeOf: (it: Attack) => Outcome; left: string } {
    const attempts = attacks.map(([, sql, , given]) => ({ statements: toStatements(sql), given }));
    const { outcomes, left } = attackAll(template, settings, look, attempts);
    return { outcomeOf: (it) => outcomes[attacks.indexOf(it)] ?? expect.unreachable(), left };
  }

  function expectNothingChanged({ before, tried, left }: Outcome): void {
    for (const { statement, after } of tried) expect(after, statement).toBe(before);
    expect(left ?? before, 'a new connection').toBe(before);
  }

  /** All the ways that were tried have to end with the error of the attack. */
  function expectRefused(outcome: Outcome, [, sql, refusal, given]: Attack): void {
    expectNothingChanged(outcome);
    if (given === undefined) expect(outcome.before).toBe(templateDump);
    expect(outcome.tried.length).toBeGreaterThanOrEqual(ways(sql).length);
    for (const { statement, error } of outcome.tried) expect(error, statement).toMatch(refusal);
  }

  const everyWay = (sql: string): string[] => [...ways(sql), orIgnore(sql)];

  describe.each([...plainClients, ...recursiveClients, ...carelessClients])('%s', (_title, settings) => {
    const all = rules.flatMap(([, attacks]) => attacks);
    const tried = once(() => attack(settings, all, everyWay));
    describe.each(rules)('rule %s', (_rule, attacks) => {
      test.each(named(attacks))('refuses %s', (_tries, it) => expectRefused(tried().outcomeOf(it), it));
    });
    test('a new connection finds nothing changed by what was refused', () => {
      expect(tried().left).toBe(templateDump);
    });
  });

  describe.each(carelessClients)('%s', (_title, settings) => {
    const tried = once(() => attack(settings, rulesWithoutChecks, everyWay));
    test.each(named(rulesWithoutChecks))('refuses %s', (_tries, it) =>
      expectRefused(tried().outcomeOf(it), it),
    );
  });

  describe.each(plainClients)('%s', (_title, settings) => {
    const tried = once(() => attack(settings, constraints, ways));
    // Only the sequence may go on, as it does for any row that is ignored.
    const ignored = once(() => attack(settings, constraints, (sql) => [orIgnore(sql)], dumpRows));
    test.each(named(constraints))('refuses %s', (_tries, it) => {
      expectRefused(tried().outcomeOf(it), it);
      expectNothingChanged(ignored().outcomeOf(it));
    });
    test('a new connection finds nothing changed by what broke a constraint', () => {
      expect(tried().left).toBe(templateDump);
    });
  });

  test('a client cannot put temporary tables in the way of the rules', () => {
    const file = database();
    const { errors } = runShell(
      file,
      `create temp table snapshot (id, name, kind, parent_id);
insert into temp.snapshot values (99, 'fake', 'committed', null);
create temp table removal (id, part, state);
create temp table label (snapshot_id, key, value);
create temp table high_water (only_row, id);
insert into main.${openColumns} values (null, 'new', 'active', 99, 1, 1);
insert into main.label values (99, 'k', 'v');
delete from main.snapshot where id = 4;
`,
    );
    expect(errors).toEqual([
      { line: 6, message: expect.stringMatching(noParent) },
      { line: 7, message: expect.stringMatching(noSnapshot) },
    ]);
    expect(queryShell(file, 'select * from removal where id = 4')).toEqual([
      { id: 4, part: 'all', state: 'deleting' },
    ]);
    expect(queryShell(file, 'select * from label where snapshot_id = 4')).toEqual([]);
  });

  test('a refused statement takes nothing else of its transaction with it', () => {
    const file = database();
    const { errors } = runShell(
      file,
      `begin immediate;
insert into ${openColumns} values (null, 'before', 'active', 2, 1, 1);
insert or replace into ${openColumns} values (null, 'bad', 'active', 99, 1, 1);
insert into ${openColumns} values (null, 'after', 'active', 2, 1, 1);
commit;
`,
    );
    expect(errors).toEqual([{ line: 3, message: expect.stringMatching(noParent) }]);
    expect(queryShell(file, 'select id, name from snapshot where id > 7')).toEqual([
      { id: 10, name: 'before' },
      { id: 11, name: 'after' },
    ]);
  });

  describe.each(plainClients)('%s, what is allowed', (_title, settings) => {
    /** Runs a script in a database with the fixture, without an error. */
    function run(script: string): string {
      const file = database();
      mustRun(file, `${settings}\n${script}\n`);
      return file;
    }

    test('a commit: name, times, usage, seal; it journals the work directory', () => {
      const file = run(`
        update snapshot
           set name = 'done', kind = 'committed', created_us = 44, updated_us = 45,
               inodes = 3, size = 12288, seal = 'v1:ab', in_use = 1
         where id = 4;`);
      expect(queryShell(file, 'select * from snapshot where id = 4')).toEqual([
        {
          id: 4,
          name: 'done',
          kind: 'committed',
          parent_id: 2,
          created_us: 44,
          updated_us: 45,
          inodes: 3,
          size: 12288,
          seal: 'v1:ab',
          in_use: 1,
          volatile_boot: null,
        },
      ]);
      expect(queryShell(file, 'select * from removal where id = 4')).toEqual([
        { id: 4, part: 'work', state: 'deleting' },
      ]);
    });

    test('a commit under its own key, without seal', () => {
      const file = run(`update snapshot set ${flip} where id = 4;`);
      expect(queryShell(file, 'select name, kind, seal, in_use from snapshot where id = 4')).toEqual([
        { name: 'work', kind: 'committed', seal: null, in_use: null },
      ]);
    });

    test('a commit that gives a parent to a snapshot that has none', () => {
      const file = run(`update snapshot set name = 'rebased', ${flip}, parent_id = 3 where id = 5;`);
      expect(queryShell(file, 'select name, parent_id from snapshot where id = 5')).toEqual([
        { name: 'rebased', parent_id: 3 },
      ]);
    });

    test('two commits in one statement', () => {
      const file = run(`update snapshot set name = name || '!', ${flip} where kind = 'active';`);
      expect(queryShell(file, `select name from snapshot where kind = 'committed' order by id`)).toEqual(
        ['base', 'layer', 'top', 'work!', 'scratch!'].map((name) => ({ name })),
      );
      expect(queryShell(file, `select id from removal where part = 'work'`)).toEqual([
        { id: 3 },
        { id: 4 },
        { id: 5 },
      ]);
    });

    test('a parent and its child in one statement', () => {
      const file = run(`
        insert into ${sealedColumns} values
          (10, 'p', 'committed', 3, 1, 1, 0, 0), (11, 'c', 'committed', 10, 1, 1, 0, 0);`);
      expect(queryShell(file, 'select parent_id from snapshot where id = 11')).toEqual([{ parent_id: 10 }]);
    });

    test('labels of a snapshot of any kind, set, changed, moved and taken away', () => {
      const file = run(`
        insert into label values (1, 'new', 'x'), (6, 'new', 'x'), (4, 'new', 'x');
        insert into label values (1, 'os', 'alpine')
          on conflict (snapshot_id, key) do update set value = excluded.value;
        insert or replace into label values (4, 'job', '18');
        update label set snapshot_id = 7 where snapshot_id = 6;
        delete from label where key = 'arch';`);
      expect(
        queryShell(file, `select snapshot_id || key || '=' || value as l from label order by l`),
      ).toEqual(['1new=x', '1os=alpine', '4job=18', '4new=x', '7new=x'].map((l) => ({ l })));
    });

    test('updated_us of a snapshot of any kind', () => {
      const file = run(`update snapshot set updated_us = 777;`);
      expect(queryShell(file, 'select count(*) as n from snapshot where updated_us = 777')).toEqual([
        { n: 7 },
      ]);
    });

    test('a change to what is there already', () => {
      const file = run(`
        update snapshot set id = id, rowid = rowid, name = name, kind = kind, parent_id = parent_id,
               created_us = created_us, inodes = inodes, size = size, seal = seal, in_use = in_use;
        update removal set state = state;
        update high_water set id = id;`);
      expect(mustRun(file, dump)).toBe(templateDump);
    });

    test.each([
      ['an active snapshot', 4],
      ['an active snapshot without parent', 5],
      ['a view', 6],
      ['a committed snapshot whose work directory is still there', 3],
    ])('deleting %s journals its id, and drops its labels and the entry of its work', (_what, id) => {
      const file = run(`insert into label values (${id}, 'a', 'b');\ndelete from snapshot where id = ${id};`);
      expect(queryShell(file, `select * from snapshot where id = ${id}`)).toEqual([]);
      expect(queryShell(file, `select * from label where snapshot_id = ${id}`)).toEqual([]);
      expect(queryShell(file, `select part, state from removal where id = ${id}`)).toEqual([
        { part: 'all', state: 'deleting' },
      ]);
      expect(queryShell(file, 'select count(*) as n from label')).toEqual([{ n: id === 4 ? 2 : 3 }]);
    });

    test('many leaves in one statement, then their parents one by one', () => {
      const file = run(`
        delete from snapshot where id >= 3;
        delete from snapshot where id = 2;
        delete from snapshot;`);
      expect(queryShell(file, `select group_concat(id || part || state) as ids from removal`)).toEqual([
        { ids: `${[1, 2, 3, 4, 5, 6, 7, 8].map((id) => `${id}alldeleting`).join(',')},9allreserved` },
      ]);
      expect(queryShell(file, 'select * from label')).toEqual([]);
    });

    test('a reservation becomes a snapshot and is used up by it', () => {
      const file = run(`insert into ${sealedColumns} values (9, 'copy', 'committed', 2, 1, 1, 5, 5);`);
      expect(queryShell(file, 'select id, name from snapshot where id = 9')).toEqual([
        { id: 9, name: 'copy' },
      ]);
      expect(queryShell(file, 'select * from removal where id = 9')).toEqual([]);
    });

    test('a reservation becomes a snapshot after later ids, and below a raised mark', () => {
      const file = run(`
        ${automatic};
        update high_water set id = 100;
        insert into ${sealedColumns} values (9, 'copy', 'committed', 2, 1, 1, 5, 5);`);
      expect(queryShell(file, 'select id, name from snapshot where id > 7')).toEqual([
        { id: 9, name: 'copy' },
        { id: 10, name: 'new' },
      ]);
      expect(queryShell(file, 'select id from high_water')).toEqual([{ id: 100 }]);
    });

    test('a reservation is given up', () => {
      const file = run(`update removal set state = 'deleting' where state = 'reserved';`);
      expect(queryShell(file, 'select state from removal where id = 9')).toEqual([{ state: 'deleting' }]);
    });

    test('an entry of the journal is cleared, and a work directory journalled again', () => {
      const file = run(`
        delete from removal where state = 'deleting';
        insert into removal values (1, 'work', 'deleting');`);
      expect(queryShell(file, 'select id, part from removal')).toEqual([
        { id: 1, part: 'work' },
        { id: 9, part: 'all' },
      ]);
    });

    /** Both ways of getting a new id: from the mark, as the driver does, and AUTOINCREMENT. */
    const next = [
      [
        'from the mark',
        `insert into ${openColumns} select id + 1, 'new', 'active', null, 1, 1 from high_water;`,
      ],
      ['by AUTOINCREMENT', `${automatic};`],
    ] as const;
    const later = [
      ['as it is', '', 10],
      ['after the last ones are deleted', emptied, 10],
      ['after a higher id was given', `insert into ${openColumns} values (20, 'far', 'view', 1, 1, 1);`, 21],
      ['after one was reserved', `insert into removal values (30, 'all', 'reserved');`, 31],
      ['after an unknown far one was journalled', `insert into removal values (50, 'all', 'deleting');`, 51],
      ['after the mark was raised', `update high_water set id = 70;`, 71],
    ] as const;
    test.each(
      later.flatMap(([when, given, id]) => next.map(([how, sql]) => [how, when, given, sql, id] as const)),
    )('a new id, %s, %s', (_how, _when, given, sql, id) => {
      const file = run(`${given}\n${sql}`);
      expect(queryShell(file, `select id from snapshot where name = 'new'`)).toEqual([{ id }]);
      expect(queryShell(file, 'select id from high_water')).toEqual([{ id }]);
      expect(queryShell(file, 'select name, seq from sqlite_sequence')).toEqual([
        { name: 'snapshot', seq: id },
      ]);
    });

    test('the first snapshot of a store has id 1, and the sequence has one row', () => {
      const file = emptyDatabase();
      mustRun(file, `${settings}\n${automatic};\n`);
      expect(queryShell(file, 'select id from snapshot')).toEqual([{ id: 1 }]);
      expect(queryShell(file, 'select name, seq from sqlite_sequence')).toEqual([
        { name: 'snapshot', seq: 1 },
      ]);
    });

    test('the first snapshot of a store leaves a reservation before it alone', () => {
      const file = emptyDatabase();
      mustRun(file, `${settings}\ninsert into removal values (1, 'all', 'reserved');\n${automatic};\n`);
      expect(queryShell(file, 'select id from snapshot')).toEqual([{ id: 2 }]);
      expect(queryShell(file, 'select id, state from removal')).toEqual([{ id: 1, state: 'reserved' }]);
    });

    test('a raised sequence only leaves a gap', () => {
      const file = run(`update sqlite_sequence set seq = 500;\n${automatic};`);
      expect(queryShell(file, `select id from snapshot where name = 'new'`)).toEqual([{ id: 501 }]);
      expect(queryShell(file, 'select id from high_water')).toEqual([{ id: 501 }]);
    });

    test.each([
      ['lowered', 'update sqlite_sequence set seq = 1;'],
      ['deleted', 'delete from sqlite_sequence;'],
      ['raised beyond all', 'update sqlite_sequence set seq = 9223372036854775807;'],
      ['made text', `update sqlite_sequence set seq = 'zzz';`],
    ])('ids from the mark continue upwards after the sequence was %s', (_how, given) => {
      const file = run(`${given}\n${next[0][1]}`);
      expect(queryShell(file, `select id from snapshot where name = 'new'`)).toEqual([{ id: 10 }]);
    });

    test.each([
      ['lowered', 'update sqlite_sequence set seq = 1;'],
      ['deleted', 'delete from sqlite_sequence;'],
    ])('one id from the mark mends a sequence that was %s', (_how, given) => {
      const file = run(`
        ${given}
        insert into ${openColumns} select id + 1, 'mends', 'active', null, 1, 1 from high_water;
        ${automatic};`);
      expect(queryShell(file, 'select id, name from snapshot where id > 7')).toEqual([
        { id: 10, name: 'mends' },
        { id: 11, name: 'new' },
      ]);
    });

    test('names and labels as long as they may be, and of any characters', () => {
      const file = run(`
        insert into ${openColumns} values
          (null, replace(printf('%.2048c', 'x'), 'x', 'é'), 'active', null, 1, 1),
          (null, '../a b:c,d\\e' || char(10), 'active', null, 1, 1);
        insert into label values (1, 'k', printf('%.4095c', 'x'));`);
      expect(queryShell(file, 'select length(cast(name as blob)) as n from snapshot where id > 7')).toEqual([
        { n: 4096 },
        { n: 13 },
      ]);
    });
  });

  describe('the views', () => {
    test('of an empty store are empty', () => {
      const file = emptyDatabase();
      for (const view of ['snapshot_overview', 'snapshot_ancestor', 'snapshot_tree']) {
        expect(queryShell(file, `select * from ${view}`)).toEqual([]);
      }
    });

    test('snapshot_overview tells everything of a snapshot in one line', () => {
      const file = database();
      mustRun(file, `update snapshot set updated_us = 1700000000123456 where id = 2;\n`);
      const rows = queryShell(file, 'select * from snapshot_overview order by id');
      expect(rows.slice(0, 4)).toEqual([
        {
          id: 1,
          name: 'base',
          kind: 'committed',
          parent: null,
          depth: 0,
          children: 1,
          created: '1970-01-01T00:00:01.000001Z',
          updated: '1970-01-01T00:00:01.000001Z',
          size: 40960,
          inodes: 10,
          labels: '{"arch":"arm64","os":"debian"}',
        },
        {
          id: 2,
          name: 'layer',
          kind: 'committed',
          parent: 'base',
          depth: 1,
          children: 3,
          created: '1970-01-01T00:00:02.000002Z',
          updated: '2023-11-14T22:13:20.123456Z',
          size: 512,
          inodes: 2,
          labels: '{}',
        },
        {
          id: 3,
          name: 'top',
          kind: 'committed',
          parent: 'layer',
          depth: 2,
          children: 0,
          created: '1970-01-01T00:00:00.000003Z',
          updated: '1970-01-01T00:00:00.000003Z',
          size: 4096,
          inodes: 1,
          labels: '{}',
        },
        {
          id: 4,
          name: 'work',
          kind: 'active',
          parent: 'layer',
          depth: 2,
          children: 0,
          created: '1970-01-01T00:00:00.000004Z',
          updated: '1970-01-01T00:00:00.000004Z',
          size: null,
          inodes: null,
          labels: '{"job":"17"}',
        },
      ]);
      expect(rows.slice(4).map(({ name, parent, depth }) => [name, parent, depth])).toEqual([
        ['scratch', null, 0],
        ['look', 'layer', 2],
        ['bare', null, 0],
      ]);
    });

    test('snapshot_ancestor has every pair with its distance', () => {
      const file = database();
      expect(
        queryShell(
          file,
          `select snapshot || ' ' || ancestor || ' ' || distance as pair, snapshot_id, ancestor_id
             from snapshot_ancestor order by snapshot_id, distance`,
        ),
      ).toEqual([
        { pair: 'layer base 1', snapshot_id: 2, ancestor_id: 1 },
        { pair: 'top layer 1', snapshot_id: 3, ancestor_id: 2 },
        { pair: 'top base 2', snapshot_id: 3, ancestor_id: 1 },
        { pair: 'work layer 1', snapshot_id: 4, ancestor_id: 2 },
        { pair: 'work base 2', snapshot_id: 4, ancestor_id: 1 },
        { pair: 'look layer 1', snapshot_id: 6, ancestor_id: 2 },
        { pair: 'look base 2', snapshot_id: 6, ancestor_id: 1 },
      ]);
    });

    test('snapshot_tree draws the snapshots, a line each', () => {
      const file = database();
      mustRun(
        file,
        `insert into ${sealedColumns} values (10, 'big', 'committed', 1, 1, 1, 2, 1610612736);
insert into ${openColumns} values (11, 'on-big', 'view', 10, 1, 1), (12, 'on-top', 'active', 3, 1, 1);
`,
      );
      expect(mustRun(file, 'select * from snapshot_tree;\n')).toBe(`base  (committed, 10 inodes, 40.0 KiB)
├─ layer  (committed, 2 inodes, 512 B)
│  ├─ top  (committed, 1 inodes, 4.0 KiB)
│  │  └─ on-top  (active)
│  ├─ work  (active)
│  └─ look  (view)
└─ big  (committed, 2 inodes, 1.5 GiB)
   └─ on-big  (view)
scratch  (active)
bare  (view)
`);
    });

    test('the views show names and labels so that they cannot control a terminal', () => {
      const file = emptyDatabase();
      mustRun(
        file,
        `insert into ${sealedColumns} values (null, 'two' || char(10) || 'lines', 'committed', null, 1, 1, 0, 0);
insert into ${openColumns} values
  (null, 'tab' || char(9), 'active', 1, 1, 1),
  (null, 'm' || char(27) || ']0;x' || char(7) || char(27) || '[2J' || char(8238, 155) || '"\\', 'active', 1, 1, 1),
  (null, 'plain "quotes" [a-z] ü 💥', 'active', 1, 1, 1);
insert into label values (3, 'direction' || char(8294), 'up' || char(155, 127, 8203) || char(10) || '"ü"');
`,
      );
      const odd = String.raw`"m\u001b]0;x\u0007\u001b[2J\u202e\u009b\"\\"`;
      expect(mustRun(file, 'select * from snapshot_tree;\n')).toBe(
        String.raw`"two\nlines"  (committed, 0 inodes, 0 B)
├─ "tab\t"  (active)
├─ ${odd}  (active)
└─ plain "quotes" [a-z] ü 💥  (active)
`,
      );
      expect(mustRun(file, 'select name, parent, labels from snapshot_overview where id in (3, 4);\n')).toBe(
        String.raw`${odd}|"two\nlines"|{"direction\u2066":"up\u009b\u007f\u200b\n\"ü\""}
plain "quotes" [a-z] ü 💥|"two\nlines"|{}
`,
      );
      expect(mustRun(file, 'select snapshot, ancestor from snapshot_ancestor where snapshot_id = 3;\n')).toBe(
        String.raw`${odd}|"two\nlines"
`,
      );
      const [{ name, labels } = { name: '', labels: '' }] = queryShell<{ name: string; labels: string }>(
        file,
        'select name, labels from snapshot_overview where id = 3',
      );
      expect(JSON.parse(name)).toBe('m\u001B]0;x\u0007\u001B[2J\u202E\u009B"\\');
      expect(JSON.parse(labels)).toEqual({ 'direction\u2066': 'up\u009B\u007F\u200B\n"ü"' });
    });

    test('go to the end of a chain as long as overlayfs can stack', () => {
      const file = emptyDatabase();
      mustRun(
        file,
        `with recursive n (id) as (select 1 union all select id + 1 from n where id < 501)
insert into ${sealedColumns} select id, 'n' || id, 'committed', nullif(id - 1, 0), 1, 1, 1, 1 from n;
`,
      );
      expect(queryShell(file, `select depth from snapshot_overview where name = 'n501'`)).toEqual([
        { depth: 500 },
      ]);
      expect(
        queryShell(file, `select ancestor from snapshot_ancestor where snapshot = 'n501' and distance = 500`),
      ).toEqual([{ ancestor: 'n1' }]);
      expect(queryShell(file, 'select count(*) as n from snapshot_tree')).toEqual([{ n: 501 }]);
    });

    test('end on a database with cycles and missing parents, which no rule would let come about', () => {
      const file = database();
      const triggers = queryShell<{ name: string }>(
        file,
        `select name from sqlite_schema where type = 'trigger'`,
      );
      expect(triggers.length).toBeGreaterThan(10);
      mustRun(
        file,
        `${triggers.map(({ name }) => `drop trigger ${name};\n`).join('')}
update snapshot set parent_id = 3 where id = 1;
update snapshot set parent_id = 5 where id = 5;
update snapshot set parent_id = 99 where id = 7;
with recursive n (id) as (select 1000 union all select id + 1 from n where id < 1599)
insert into ${sealedColumns} select id, 'n' || id, 'committed', id + 1, 1, 1, 1, 1 from n;
update snapshot set parent_id = 1000 where id = 1599;
`,
      );
      // A query that does not end by itself is killed, and fails here.
      expect(queryShell(file, 'select id, depth from snapshot_overview where id < 1002')).toEqual([
        { id: 1, depth: 3 },
        { id: 2, depth: 3 },
        { id: 3, depth: 3 },
        { id: 4, depth: 3 },
        { id: 5, depth: 1 },
        { id: 6, depth: 3 },
        { id: 7, depth: 1 },
        { id: 1000, depth: 512 },
        { id: 1001, depth: 512 },
      ]);
      expect(queryShell(file, 'select sum(depth) as n from snapshot_overview where id >= 1000')).toEqual([
        { n: 600 * 512 },
      ]);
      expect(
        queryShell(
          file,
          'select snapshot_id, count(*) as n from snapshot_ancestor where snapshot_id < 1000 group by 1',
        ),
      ).toEqual([1, 2, 3, 4, 5, 6].map((snapshot_id) => ({ snapshot_id, n: 512 })));
      expect(queryShell(file, 'select count(*) as n from snapshot_ancestor')).toEqual([{ n: 606 * 512 }]);
      expect(queryShell<{ n: number }>(file, 'select count(*) as n from snapshot_tree')[0]?.n).toBeLessThan(
        608,
      );
    });
  });
});

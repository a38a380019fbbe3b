CREATE INDEX label_value on label (key, value, snapshot_id);

CREATE INDEX snapshot_child on snapshot (parent_id) where parent_id is not null;

CREATE INDEX snapshot_open on snapshot (id) where kind <> 'committed';

CREATE TABLE high_water (
  only_row    integer primary key,
  id          integer not null,
  -- How often a commit of unknown outcome had to be settled by one after it, which has to write something.
  settlements integer not null default 0,

  check (only_row = 1)
) strict;

CREATE TABLE label (
  snapshot_id integer not null references snapshot (id),
  key         text    not null,
  value       text    not null,

  primary key (snapshot_id, key),
  check (length(key) > 0 and length(value) > 0),
  check (length(cast(key as blob)) + length(cast(value as blob)) <= 4096),
  check (instr(cast(key as blob), x'00') = 0 and instr(cast(value as blob), x'00') = 0)
) strict, without rowid;

CREATE TABLE removal (
  id    integer not null,
  part  text    not null,
  state text    not null,

  primary key (id, part),
  check (id between 1 and 9007199254740991),
  check (part in ('all', 'work')),
  check (state in ('reserved', 'deleting')),
  check (part = 'all' or state = 'deleting')
) strict, without rowid;

CREATE TABLE snapshot (
  id         integer primary key autoincrement,
  name       text    not null unique,
  kind       text    not null,
  parent_id  integer references snapshot (id),
  created_us integer not null,
  updated_us integer not null,
  inodes     integer,
  size       integer,
  seal       text,
  in_use     integer, volatile_boot text check (volatile_boot is null or kind = 'active'),

  check (id between 1 and 9007199254740991),
  check (length(cast(name as blob)) between 1 and 4096 and instr(cast(name as blob), x'00') = 0),
  check (kind in ('active', 'view', 'committed')),
  check ((kind = 'committed') = (inodes is not null) and (kind = 'committed') = (size is not null)),
  check (inodes >= 0 and size >= 0),
  check (kind = 'committed' or (seal is null and in_use is null)),
  check (in_use in (0, 1))
) strict;

CREATE TABLE sqlite_sequence(name,seq);

CREATE TRIGGER high_water_delete before delete on high_water
begin
  select raise(abort, 'there is one high-water mark');
end;

CREATE TRIGGER high_water_insert before insert on high_water
  when exists (select 1 from high_water)
begin
  select raise(abort, 'there is one high-water mark');
end;

CREATE TRIGGER high_water_sequence after update on high_water
  when new.id > old.id
begin
  update sqlite_sequence set seq = new.id where name = 'snapshot' and seq < new.id;
end;

CREATE TRIGGER high_water_update before update on high_water
  when new.id < old.id or new.only_row is not old.only_row
begin
  select raise(abort, 'the high-water mark only grows');
end;

CREATE TRIGGER label_insert before insert on label
  when not exists (select 1 from snapshot where id = new.snapshot_id)
begin
  select raise(abort, 'a label has a snapshot');
end;

CREATE TRIGGER label_update before update on label
  when not exists (select 1 from snapshot where id = new.snapshot_id)
begin
  select raise(abort, 'a label has a snapshot');
end;

CREATE TRIGGER removal_insert before insert on removal
begin
  select raise(abort, 'a removal is of all or work, and reserved or deleting')
   where (new.part, new.state) not in (values ('all', 'reserved'), ('all', 'deleting'), ('work', 'deleting'));
  select raise(abort, 'the id is already in the removal journal')
   where exists (select 1 from removal where id = new.id and part = new.part);
  select raise(abort, 'only the work directory of a live snapshot is ever deleted')
   where new.part is not 'work'
     and exists (select 1 from snapshot where id = new.id);
  select raise(abort, 'only a committed snapshot gives up its work directory')
   where new.part is 'work'
     and not exists (select 1 from snapshot where id = new.id and kind = 'committed');
  select raise(abort, 'only an id that was never used can be reserved')
   where new.state is 'reserved'
     and new.id <= (select id from high_water);
end;

CREATE TRIGGER removal_insert_id after insert on removal
begin
  update high_water set id = new.id where id < new.id;
end;

CREATE TRIGGER removal_update before update on removal
begin
  select raise(abort, 'a journalled removal only ever goes from reserved to deleting')
   where (new.id, new.part) is not (old.id, old.part)
      or (new.state is not old.state and not (old.state = 'reserved' and new.state = 'deleting'));
end;

CREATE TRIGGER snapshot_commit after update on snapshot
  when old.kind = 'active' and new.kind = 'committed'
begin
  insert into removal (id, part, state) values (new.id, 'work', 'deleting');
end;

CREATE TRIGGER snapshot_delete before delete on snapshot
begin
  select raise(abort, 'a snapshot with children cannot be deleted')
   where exists (select 1 from snapshot where parent_id = old.id);
  delete from label where snapshot_id = old.id;
end;

CREATE TRIGGER snapshot_delete_journal after delete on snapshot
begin
  delete from removal where id = old.id and part = 'work';
  insert into removal (id, part, state) values (old.id, 'all', 'deleting');
end;

CREATE TRIGGER snapshot_insert before insert on snapshot
begin
  -- Raising here, before the insert, also stops REPLACE from deleting the row that is in the way.
  select raise(abort, 'the key or name is taken')
   where exists (select 1 from snapshot where name = new.name);
  select raise(abort, 'the id is taken')
   where exists (select 1 from snapshot where id = new.id);
  select raise(abort, 'kind is active, view or committed')
   where new.kind not in ('active', 'view', 'committed');
  select raise(abort, 'a parent exists and is committed')
   where new.parent_id is not null
     and not exists (select 1 from snapshot where id = new.parent_id and kind = 'committed');
  -- An automatic id, still -1 here, is one more than the sequence or the highest row. Whoever lowered the
  -- sequence would have it fall on a reserved id, and so into the directory of another's copy.
  select raise(abort, 'sqlite_sequence is behind a reserved id')
   where new.id < 1
     and exists (
           select 1
             from removal
            where state = 'reserved'
              and id > (select coalesce(max(id), 0) from snapshot)
              and id > coalesce((select cast(seq as integer)
                                   from sqlite_sequence
                                  where name = 'snapshot'
                                  order by rowid
                                  limit 1), 0)
         );
end;

CREATE TRIGGER snapshot_insert_id after insert on snapshot
begin
  select raise(abort, 'an id is never used twice')
   where new.id <= (select id from high_water)
     and not exists (select 1 from removal where id = new.id and part = 'all' and state = 'reserved');
  select raise(abort, 'an id in the removal journal cannot become a snapshot')
   where exists (select 1 from removal where id = new.id and state = 'deleting');
  delete from removal where id = new.id and part = 'all' and state = 'reserved';
  update high_water set id = new.id where id < new.id;
end;

CREATE TRIGGER snapshot_update before update on snapshot
begin
  select raise(abort, 'the id of a snapshot never changes')
   where new.id is not old.id;
  select raise(abort, 'kind only ever changes from active to committed')
   where new.kind is not old.kind
     and not (old.kind = 'active' and new.kind = 'committed');
  select raise(abort, 'only labels and updated_us of a snapshot change, except when it is committed')
   where new.kind is old.kind
     and (new.name, new.parent_id, new.created_us, new.inodes, new.size, new.seal, new.in_use)
         is not (old.name, old.parent_id, old.created_us, old.inodes, old.size, old.seal, old.in_use);
  select raise(abort, 'a commit can only give a parent to a snapshot that has none')
   where old.parent_id is not null
     and new.parent_id is not old.parent_id;
  select raise(abort, 'a parent exists and is committed')
   where new.parent_id is not old.parent_id
     and not exists (select 1 from snapshot where id = new.parent_id and kind = 'committed');
  select raise(abort, 'the key or name is taken')
   where new.name is not old.name
     and exists (select 1 from snapshot where name = new.name);
end;

CREATE TRIGGER snapshot_volatile before update of volatile_boot on snapshot
  when new.volatile_boot is not old.volatile_boot
begin
  select raise(abort, 'a snapshot is volatile from when it is made until it is committed')
   where old.volatile_boot is null
      or (new.volatile_boot is null) <> (new.kind = 'committed');
end;

CREATE VIEW hidden_character (number, character, escaped) as
with recursive code (point, last) as (
  select first, last from hidden_span
  union all
  select point + 1, last from code where point < last
)
select row_number() over (order by point), char(point), printf('\u%04x', point)
  from code;

CREATE VIEW hidden_span (first, last) as
values (1, 31), (127, 159), (173, 173), (1564, 1564), (6158, 6158), (8203, 8207), (8232, 8238), (8288, 8303),
       (65279, 65279), (65529, 65531);

CREATE VIEW shown_labels (snapshot_id, labels) as
with object (snapshot_id, json) as (
  select id, (select json_group_object(key, value) from label where snapshot_id = snapshot.id)
    from snapshot
)
select snapshot_id,
       case when json glob (select '*[' || group_concat(char(first) || '-' || char(last), '') || ']*' from hidden_span)
            then (with recursive step (text, number) as (
                    select object.json, 0
                    union all
                    select replace(step.text, character, escaped), hidden_character.number
                      from step
                      join hidden_character on hidden_character.number = step.number + 1
                  )
                  select text from step order by number desc limit 1)
            else json end
  from object;

CREATE VIEW shown_name (id, name) as
select id,
       case when name glob (select '*[' || group_concat(char(first) || '-' || char(last), '') || ']*' from hidden_span)
            then (with recursive step (text, number) as (
                    select json_quote(snapshot.name), 0
                    union all
                    select replace(step.text, character, escaped), hidden_character.number
                      from step
                      join hidden_character on hidden_character.number = step.number + 1
                  )
                  select text from step order by number desc limit 1)
            else name end
  from snapshot;

CREATE VIEW snapshot_ancestor (snapshot_id, snapshot, ancestor_id, ancestor, distance) as
with recursive step (snapshot_id, ancestor_id, distance) as (
  select id, parent_id, 1
    from snapshot
   where parent_id is not null
  union all
  select step.snapshot_id, snapshot.parent_id, step.distance + 1
    from step
    join snapshot on snapshot.id = step.ancestor_id
   where snapshot.parent_id is not null
     and step.distance < 512
)
select step.snapshot_id, own.name, step.ancestor_id, ancestor.name, step.distance
  from step
  join shown_name as own on own.id = step.snapshot_id
  join shown_name as ancestor on ancestor.id = step.ancestor_id;

CREATE VIEW snapshot_overview
  (id, name, kind, parent, depth, children, created, updated, size, inodes, labels) as
select snapshot.id,
       (select name from shown_name where id = snapshot.id),
       snapshot.kind,
       (select name from shown_name where id = snapshot.parent_id),
       (with recursive chain (id) as (
          select snapshot.parent_id
           where snapshot.parent_id is not null
          union
          select ancestor.parent_id
            from chain
            join snapshot as ancestor on ancestor.id = chain.id
           where ancestor.parent_id is not null
           limit 512
        )
        select count(*) from chain),
       (select count(*) from snapshot as child where child.parent_id = snapshot.id),
       strftime('%Y-%m-%dT%H:%M:%S', snapshot.created_us / 1000000, 'unixepoch')
         || printf('.%06dZ', snapshot.created_us % 1000000),
       strftime('%Y-%m-%dT%H:%M:%S', snapshot.updated_us / 1000000, 'unixepoch')
         || printf('.%06dZ', snapshot.updated_us % 1000000),
       snapshot.size,
       snapshot.inodes,
       (select labels from shown_labels where snapshot_id = snapshot.id)
  from snapshot;

CREATE VIEW snapshot_tree (tree) as
with recursive
  node (id, parent_id, last, line) as (
    select id,
           parent_id,
           id = (select max(id) from snapshot as sibling where sibling.parent_id = snapshot.parent_id),
           (select name from shown_name where id = snapshot.id)
             || case when kind = 'committed'
                     then printf('  (committed, %d inodes, %s)', inodes,
                            case when size < 1024 then printf('%d B', size)
                                 when size < 1048576 then printf('%.1f KiB', size / 1024.0)
                                 when size < 1073741824 then printf('%.1f MiB', size / 1048576.0)
                                 else printf('%.1f GiB', size / 1073741824.0) end)
                     else '  (' || kind || ')' end
      from snapshot
  ),
  drawn (id, depth, indent, tree) as (
    select id, 0, '', line
      from node
     where parent_id is null
    union all
    select node.id,
           drawn.depth + 1,
           drawn.indent || case when node.last then '   ' else '│  ' end,
           drawn.indent || case when node.last then '└─ ' else '├─ ' end || node.line
      from drawn
      join node on node.parent_id = drawn.id
     order by 2 desc, 1
  )
select tree from drawn;

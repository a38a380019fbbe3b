-- The views for people show what others wrote, and the sqlite3 shell prints text as it is. So a name with a character
-- that controls a terminal, changes the direction of text or cannot be seen is shown as a JSON string with that
-- character escaped, as snapshot_tree did with a few of them, and labels are escaped in the same way.

drop view snapshot_tree;
drop view snapshot_overview;
drop view snapshot_ancestor;

-- The characters that are not shown as they are, from one code point to another: C0, DEL and C1, marks of direction,
-- characters without width, and separators of lines.
create view hidden_span (first, last) as
values (1, 31), (127, 159), (173, 173), (1564, 1564), (6158, 6158), (8203, 8207), (8232, 8238), (8288, 8303),
       (65279, 65279), (65529, 65531);

-- Each of them, and how JSON escapes it.
create view hidden_character (number, character, escaped) as
with recursive code (point, last) as (
  select first, last from hidden_span
  union all
  select point + 1, last from code where point < last
)
select row_number() over (order by point), char(point), printf('\u%04x', point)
  from code;

-- The names as the views below show them. A JSON string is escaped one character after the other.
create view shown_name (id, name) as
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

-- The labels of each snapshot as a JSON object, escaped like names.
create view shown_labels (snapshot_id, labels) as
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

-- Every (snapshot, ancestor) pair, the nearest at distance 1. The bound is a little more than
-- overlayfs can stack and ends the query where a damaged database has a cycle.
create view snapshot_ancestor (snapshot_id, snapshot, ancestor_id, ancestor, distance) as
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

-- One line a snapshot, with everything that is known of it. The depth is bounded as above, for
-- a chain or cycle of thousands would be walked once for each of its snapshots.
create view snapshot_overview
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

-- The snapshots as a tree, one line each, bases first, children under their parent.
create view snapshot_tree (tree) as
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

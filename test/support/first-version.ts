import { readFileSync } from 'node:fs';
import { mustRun } from './shell.ts';

const [, views = ''] = readFileSync(
  new URL('../../migrations/0001_snapshots.sql', import.meta.url),
  'utf8',
).split(/^-- Views for people -+$/m);

/** Takes a database back to the first version of the schema, as an older overlite has it. */
export function makeFirstVersion(file: string): void {
  mustRun(
    file,
    `drop view snapshot_tree;
drop view snapshot_overview;
drop view snapshot_ancestor;
drop view shown_labels;
drop view shown_name;
drop view hidden_character;
drop view hidden_span;
${views}
drop trigger snapshot_volatile;
alter table snapshot drop column volatile_boot;
pragma user_version = 1;
`,
  );
}

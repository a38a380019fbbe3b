import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayDriver } from '../../src/index.ts';
import { mustRun, queryShell } from './shell.ts';

/** A closed store with one of everything, which a test may damage. */
export interface Example {
  readonly root: string;
  /** The ids of its snapshots. */
  readonly ids: Readonly<Record<'base' | 'app' | 'work' | 'scratch' | 'reader' | 'empty', number>>;
  /** Joins a path in the store. */
  readonly at: (...path: (string | number)[]) => string;
}

/** Makes a store with a base, a snapshot on it, workspaces and views, and closes it. */
export async function makeExample(root: string): Promise<Example> {
  const driver = await OverlayDriver.open(root, { backups: false });
  const layer = async (key: string): Promise<string> => `${(await driver.stat(key)).directory}/fs`;
  await driver.prepare('making base', null, { labels: { of: 'making' } });
  const base = await layer('making base');
  mkdirSync(join(base, 'etc'));
  writeFileSync(join(base, 'etc', 'hosts'), '127.0.0.1 localhost\n');
  writeFileSync(join(base, 'large'), 'x'.repeat(20_000));
  await driver.commit('base', 'making base', { labels: { of: 'base' } });
  await driver.prepare('making app', 'base');
  writeFileSync(join(await layer('making app'), 'app'), 'app\n');
  await driver.commit('app', 'making app', { labels: { of: 'app' } });
  await driver.prepare('work', 'app', { labels: { of: 'work' } });
  writeFileSync(join(await layer('work'), 'draft'), 'draft\n');
  await driver.prepare('scratch');
  await driver.view('reader', 'app');
  await driver.view('empty');
  const ids = {} as Record<keyof Example['ids'], number>;
  for await (const { name, id } of driver.snapshots()) ids[name as keyof Example['ids']] = id;
  await driver.cleanup();
  await driver.close();
  return exampleAt(root, ids);
}

/** Copies an example to another root. Copying is quicker than making one, which waits for the disk at every step. */
export function copyExample({ root, ids }: Example, to: string): Example {
  execFileSync('cp', ['-a', root, to]);
  return exampleAt(to, ids);
}

function exampleAt(root: string, ids: Example['ids']): Example {
  return { root, ids, at: (...path) => join(root, ...path.map(String)) };
}

/** Changes a database against its rules: drops the triggers and puts them back, with other constraints off meanwhile. */
export function breakRules(root: string, sql: string): void {
  const file = join(root, 'metadata.db');
  const triggers = queryShell<{ name: string; sql: string }>(
    file,
    "select name, sql from sqlite_schema where type = 'trigger'",
  );
  const script = [
    'pragma foreign_keys = off;',
    'pragma ignore_check_constraints = on;',
    ...triggers.map(({ name }) => `drop trigger ${name};`),
    sql,
    ...triggers.map((trigger) => `${trigger.sql};`),
  ];
  mustRun(file, script.join('\n'));
}

/** The hashes of the contents of all files of a store, except those of the database and the notes in `lost+found/`. */
export function contentsOf(directory: string | Buffer): string[] {
  return readdirSync(directory, 'buffer').flatMap((bytes) => {
    const path = Buffer.concat([Buffer.from(directory), Buffer.from('/'), bytes]);
    const name = bytes.toString();
    const found = lstatSync(path);
    if (found.isDirectory()) return contentsOf(path);
    if (!found.isFile() || name.startsWith('metadata.db') || name.endsWith('.note')) return [];
    return [createHash('sha256').update(readFileSync(path)).digest('hex')];
  });
}

/** Runs a script in a process that opens the store and is killed with the store open. `driver` is the open store. */
export function leaveOpen(root: string, script: string): void {
  const dist = join(import.meta.dirname, '../../dist/index.js');
  const program = `
    import { OverlayDriver } from ${JSON.stringify(dist)};
    const driver = await OverlayDriver.open(${JSON.stringify(root)}, { asyncRemove: true, backups: false });
    ${script}
    process.kill(process.pid, 'SIGKILL');`;
  try {
    execFileSync(process.execPath, ['--input-type=module', '-e', program], { stdio: 'pipe' });
  } catch (error) {
    if (Reflect.get(Object(error), 'signal') !== 'SIGKILL') throw error;
  }
}

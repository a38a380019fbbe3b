import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { OverlayDriver } from '../../src/index.ts';
import { mustRun } from './shell.ts';
import { makeRoot } from './store.ts';

/** The snapshots of a store that is to be damaged, with their ids. */
export interface Example {
  readonly root: string;
  readonly ids: Readonly<Record<'base' | 'app' | 'work' | 'scratch' | 'reader' | 'empty', number>>;
  /** The path of something in the store. */
  readonly at: (...path: (string | number)[]) => string;
}

/** Makes such a store for each test. `parent` is the directory that it is in, which goes with it. */
export function useExample(): Example & { readonly parent: string } {
  let made: ReturnType<typeof makeRoot> | undefined;
  let example: Example | undefined;
  const current = (): Example => {
    if (example === undefined) throw new Error('no test is running');
    return example;
  };
  beforeEach(async () => {
    made = makeRoot();
    example = await makeExample(join(made.root, 'store'));
  });
  afterEach(() => made?.remove());
  return {
    get root() {
      return current().root;
    },
    get ids() {
      return current().ids;
    },
    get parent() {
      return made?.root ?? '';
    },
    at: (...path) => current().at(...path),
  };
}

/** Makes a store with one of everything: a base, what stands on it, workspaces and views. Nobody has it open. */
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
  return { root, ids, at: (...path) => join(root, ...path.map(String)) };
}

/** Changes a database as its rules would not let anyone: they are switched off, and on again as they were. */
export function breakRules(root: string, sql: string): void {
  const file = join(root, 'metadata.db');
  const rules = execFileSync('sqlite3', [
    file,
    "select sql || ';' from sqlite_schema where type = 'trigger'",
  ]).toString();
  const names = mustRun(file, "select name from sqlite_schema where type = 'trigger';\n").trim().split('\n');
  const script = [
    'pragma foreign_keys = off;',
    'pragma ignore_check_constraints = on;',
    ...names.map((name) => `drop trigger ${name};`),
    sql,
    rules,
  ];
  mustRun(file, script.join('\n'));
}

/** Has a process of its own die while it has the store open. */
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

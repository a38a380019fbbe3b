import { execFile } from 'node:child_process';
import { constants, rmSync } from 'node:fs';
import { access, mkdtemp, readFile, readdir, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { OverlayDriver } from '../driver/driver.ts';
import { SnapshotError } from '../errors.ts';
import { guarded } from '../guarded.ts';
import { MetadataReader } from '../metadata/reader.ts';
import { quote } from '../quote.ts';
import { command } from './command.ts';
import { toLine } from './diff.ts';
import { say, shown } from './output.ts';
import { stopSignal } from './stopping.ts';
import { bytes, duration } from './units.ts';

const run = promisify(execFile);

const checkout = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** `overlite demo`: the main workflow, on a real tree. */
export const demoCommand = command(
  'demo',
  'Build a base from a directory, fork two workspaces from it, commit one, and build on that',
  { examples: ['overlite demo', 'overlite demo /usr/share/doc --keep'] },
)
  .argument('[directory]', 'the tree to start from (default: this package with its dependencies)')
  .option('--keep', 'keep the store afterwards')
  .action(async (directory: string | undefined, { keep = false }: { keep?: boolean }) => {
    await new Demo(resolve(directory ?? checkout)).run(keep);
  });

class Demo {
  readonly #source: string;
  readonly #canMount = process.geteuid?.() === 0;
  readonly #steps: [string, number][] = [];

  constructor(source: string) {
    this.#source = source;
  }

  async run(keep: boolean): Promise<void> {
    const found = await stat(this.#source).catch(() => undefined);
    if (found?.isDirectory() !== true) {
      throw new SnapshotError('INVALID_ARGUMENT', `${quote(this.#source)} is not a directory`);
    }
    const root = await mkdtemp(join(tmpdir(), 'overlite-'));
    say(`The store is ${shown(root)}.`);
    if (!this.#canMount) {
      say(
        'This is not root: overlays cannot be mounted here, so the workspaces are made and committed but not',
      );
      say('edited. Everything else is as it is with root.');
    }
    const discard = guarded(() => rmSync(root, { recursive: true, force: true }));
    // A closed pipe ends the process at once, without `finally`.
    if (!keep) process.once('exit', discard);
    try {
      await this.#workOn(root);
      if (keep) say(`\nThe store is kept: sqlite3 ${root}/metadata.db 'select * from snapshot_tree'`);
    } finally {
      if (!keep) discard();
    }
  }

  async #workOn(root: string): Promise<void> {
    // Only the demo needs it, and loading it takes more than half as long as loading the driver.
    const { outputFile, remove } = await import('fs-extra/esm');
    await using driver = await this.#time('open a new store', () => OverlayDriver.open(join(root)));

    const [base] = await this.#time('prepare the base', () => driver.prepare('base-layer'));
    if (base === undefined) throw new SnapshotError('INTERNAL', 'there is no mount for the base');
    await this.#time(`copy ${shown(this.#source)} into it`, async () => {
      // A base is a bind mount of its own layer, so the layer can be written to directly.
      await run('cp', ['-a', '--reflink=auto', '--', `${this.#source}/.`, base.source]);
    });
    await this.#time('commit it as "base"', () =>
      driver.commit('base', 'base-layer', { labels: { 'demo/source': this.#source.slice(0, 4000) } }),
    );

    await this.#time('fork workspace "alice"', () => driver.prepare('alice', 'base'));
    await this.#time('fork workspace "bob"', () => driver.prepare('bob', 'base'));
    if (this.#canMount) {
      await this.#edit(driver, 'alice', 'edit, add, rename and delete in "alice"', async (tree) => {
        await writeFile(join(tree, 'ALICE.md'), '# From alice\n');
        const files = await firstFiles(tree, 3);
        if (files[0] !== undefined) await writeFile(files[0], 'rewritten by alice\n');
        if (files[1] !== undefined) await rename(files[1], `${files[1]}.renamed`);
        if (files[2] !== undefined) await rm(files[2]);
      });
      await this.#edit(driver, 'bob', 'delete a directory in "bob" and make it again', async (tree) => {
        const directory = await firstDirectory(tree);
        if (directory !== undefined) await remove(directory);
        await outputFile(join(directory ?? join(tree, 'made'), 'BOB.md'), '# From bob\n');
      });
    }
    await this.#time('checkpoint "bob", who goes on', () => driver.checkpoint('bob-so-far', 'bob'));
    await this.#time('commit "alice" as "alice-1"', () => driver.commit('alice-1', 'alice'));

    await this.#time('build "carol" on "alice-1"', () => driver.prepare('carol', 'alice-1'));
    if (this.#canMount) {
      await this.#edit(driver, 'carol', 'read what alice wrote, in "carol"', async (tree) => {
        const text = await readFile(join(tree, 'ALICE.md'), 'utf8');
        await writeFile(join(tree, 'CAROL.md'), `${text}# And from carol\n`);
      });
    }
    await this.#time('view "alice-1"', () => driver.view('reader', 'alice-1'));

    await this.#show(driver, root);
  }

  async #show(driver: OverlayDriver, root: string): Promise<void> {
    const reader = await MetadataReader.openReader(join(root, 'metadata.db'));
    say('\nThe snapshots, as the view snapshot_tree has them:\n');
    for (const line of reader.tree()) say(`  ${line}`);
    reader.close();

    if (this.#canMount) {
      say('\nWhat alice and bob have changed:\n');
      for (const name of ['alice-1', 'bob-so-far']) {
        for await (const change of driver.diff(name)) say(`  ${name.padEnd(10)} ${toLine(change)}`);
      }
    }

    say('\nWhat each layer holds and costs:\n');
    for await (const { name, kind, directory } of driver.snapshots()) {
      const { inodes, size } = await driver.usage(name);
      const where = directory === null ? 'no directory of its own' : directory.slice(root.length + 1);
      say(
        `  ${name.padEnd(10)} ${kind.padEnd(10)} ${String(inodes).padStart(7)} inodes ${bytes(size).padStart(11)}  ${where}`,
      );
    }

    say('\nWhat took how long:\n');
    for (const [step, ms] of this.#steps) say(`  ${duration(ms).padStart(10)}  ${step}`);
  }

  async #edit(
    driver: OverlayDriver,
    key: string,
    step: string,
    edit: (tree: string) => Promise<void>,
  ): Promise<void> {
    const target = await mkdtemp(join(tmpdir(), 'overlite-demo-'));
    try {
      await driver.mount(key, target);
      try {
        await this.#time(step, () => edit(target));
      } finally {
        await driver.unmount(target);
      }
    } finally {
      await rmdir(target);
    }
  }

  async #time<T>(step: string, body: () => Promise<T>): Promise<T> {
    stopSignal.throwIfAborted();
    const start = performance.now();
    const result = await body();
    this.#steps.push([step, performance.now() - start]);
    return result;
  }
}

/** Some plain files at the top of a tree, or below it. */
async function firstFiles(tree: string, count: number): Promise<string[]> {
  const files: string[] = [];
  const entries = await readdir(tree, { withFileTypes: true });
  for (const entry of entries) {
    if (entry.isFile() && entry.name !== 'ALICE.md') files.push(join(tree, entry.name));
  }
  for (const entry of entries) {
    if (files.length >= count) break;
    const below = join(tree, entry.name);
    if (entry.isDirectory() && (await readable(below)))
      files.push(...(await firstFiles(below, count - files.length)));
  }
  return files.slice(0, count);
}

async function firstDirectory(tree: string): Promise<string | undefined> {
  const entry = (await readdir(tree, { withFileTypes: true })).find((candidate) => candidate.isDirectory());
  return entry && join(tree, entry.name);
}

function readable(path: string): Promise<boolean> {
  return access(path, constants.R_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
}

import { execFileSync } from 'node:child_process';
import { readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { OverlayDriver, SnapshotError } from '../../src/index.ts';
import { test } from '../support/fixtures.ts';
import { changesOf, commitLayer, layerOf } from '../support/layers.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root');

/** Everything in a store but what SQLite keeps beside its file. */
function contentsOf(root: string): string {
  const files = sh(`find . ! -name 'metadata.db-*' -printf '%p %y %m %i %T@\\n' | sort`, root);
  return `${files}${sh('sha256sum metadata.db', root)}`;
}

/** Makes a store with two committed snapshots. */
async function makeStore(root: string): Promise<void> {
  await using driver = await OverlayDriver.open(root, { backups: false });
  await commitLayer(driver, 'precious');
  await commitLayer(driver, 'more', 'precious');
  await driver.cleanup();
}

describe.skipIf(lacking)(`a root whose path leads elsewhere${lacking}`, () => {
  /** What happens to the root of a driver that is open; each gives how it is undone, and the store that is there then. */
  const changes: Readonly<
    Record<string, (root: string, other: string) => { undo: () => void; there: string }>
  > = {
    'has another store mounted over it'(root, other) {
      execFileSync('mount', ['--bind', other, root]);
      return { undo: () => execFileSync('umount', [root]), there: root };
    },
    'was renamed, and another store took its place'(root, other) {
      renameSync(root, `${root}-away`);
      renameSync(other, root);
      return {
        undo() {
          renameSync(root, other);
          renameSync(`${root}-away`, root);
        },
        there: root,
      };
    },
    'was renamed, and a copy took its place'(root) {
      renameSync(root, `${root}-away`);
      execFileSync('cp', ['-a', `${root}-away`, root]);
      return {
        undo() {
          rmSync(root, { recursive: true });
          renameSync(`${root}-away`, root);
        },
        there: root,
      };
    },
  };

  test.for(Object.keys(changes))(
    'a driver writes nothing any more if its root %s',
    async (change, { place, root, target }) => {
      const other = join(place, 'other');
      await makeStore(other);
      await using driver = await OverlayDriver.open(root, { backups: false });
      await commitLayer(driver, 'base');
      await driver.prepare('work', 'base');
      writeFileSync(join(await layerOf(driver, 'work'), 'file'), 'x');
      const { undo, there } = changes[change]?.(root, other) ?? { undo() {}, there: root };
      const before = contentsOf(there);
      const refused = {
        code: 'FAILED_PRECONDITION',
        message: expect.stringContaining('not the directory any more'),
      };
      try {
        for (const attempt of [
          () => driver.prepare('k'),
          () => driver.view('v', 'base'),
          () => driver.commit('n', 'work'),
          () => driver.checkpoint('n', 'work'),
          () => driver.remove('work'),
          () => driver.delete('base'),
          () => driver.update('base', { labels: { a: 'b' } }),
          () => driver.transaction((tx) => tx.prepare('k')),
          () => driver.mount('work', target),
          () => driver.backup(join(place, 'backup')),
        ]) {
          await expect(attempt()).rejects.toMatchObject(refused);
        }
        // It is rejected if it has something to take out of the journal.
        const [cleanup] = await Promise.allSettled([driver.cleanup()]);
        expect(cleanup.status === 'fulfilled' ? cleanup.value.removed : 0).toBe(0);
        expect((await driver.stat('work')).kind).toBe('active');
        expect(contentsOf(there)).toBe(before);
      } finally {
        undo();
      }
      await expect(driver.prepare('k')).rejects.toMatchObject(refused);
      await driver.close();
      await using again = await OverlayDriver.open(root, { backups: false });
      await again.commit('n', 'work');
    },
  );
});

/** What becomes of the database's files. */
const losses: Readonly<Record<string, (root: string) => void>> = {
  'metadata.db was replaced'(root) {
    execFileSync('sh', ['-c', 'cp -a metadata.db new && mv new metadata.db'], { cwd: root });
  },
  'metadata.db was removed'(root) {
    renameSync(join(root, 'metadata.db'), join(root, 'metadata.db-away'));
  },
  'the log was removed, as SQLite does when this process has lost its locks'(root) {
    rmSync(join(root, 'metadata.db-wal'));
  },
};

test.for(Object.keys(losses))('a driver acknowledges nothing any more once %s', async (loss, { place }) => {
  const root = join(place, 'damaged');
  await using driver = await OverlayDriver.open(root, { backups: false });
  await driver.prepare('before');
  losses[loss]?.(root);
  await expect(driver.prepare('after')).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: expect.stringContaining('not the file any more'),
  });
});

/** What can become a link, by its path in the root: `base` and `work` are the ids of two snapshots. */
const links: Readonly<Record<string, (ids: { base: number; work: number }) => string>> = {
  'snapshots/': () => 'snapshots',
  'lost+found/': () => 'lost+found',
  'backups/': () => 'backups',
  'the directory of a committed snapshot': ({ base }) => `snapshots/${base}`,
  'the directory of an active snapshot': ({ work }) => `snapshots/${work}`,
  'a committed layer': ({ base }) => `snapshots/${base}/fs`,
  'an active layer': ({ work }) => `snapshots/${work}/fs`,
  'a work directory': ({ work }) => `snapshots/${work}/work`,
};

describe.skipIf(lacking)(`a directory that becomes a link while the driver is open${lacking}`, () => {
  test.for(Object.keys(links))(
    'a driver reads, writes and deletes nothing elsewhere once %s is a link',
    async (what, { place, target, undo }) => {
      const warnings: string[] = [];
      const listen = ({ message }: Error): void => void warnings.push(message);
      process.on('warning', listen);
      undo(() => process.off('warning', listen));
      const root = join(place, 'linked');
      const elsewhere = join(place, 'elsewhere');
      await using driver = await OverlayDriver.open(root, { backups: { every: 1000, keep: 1 } });
      await commitLayer(driver, 'base');
      await driver.prepare('work', 'base');
      await driver.prepare('other', 'base');
      await driver.prepare('gone', 'base');
      const [base, work] = [(await driver.stat('base')).id, (await driver.stat('work')).id];
      const next = (await driver.stat('gone')).id + 1;
      sh(`mkdir -p lost+found backups snapshots/${next}/fs/in-the-way; touch snapshots/${work}/fs/own`, root);
      // So that what is moved there and what is deleted there would be seen.
      sh('touch lost+found/kept backups/metadata-20200101T000000000Z.db', root);
      await driver.commit('settled', 'other');
      const path = join(root, links[what]?.({ base, work }) ?? '');
      sh(`cp -a '${path}' '${elsewhere}'; touch -d '2001-01-01' '${elsewhere}/foreign'`, place);
      renameSync(path, `${path}-away`);
      symlinkSync(elsewhere, path);
      const before = treeOf(elsewhere);

      const seen: string[] = [];
      const outcomes = await Promise.allSettled([
        driver.prepare('in the way', 'base'),
        driver.view('v', 'base'),
        driver.usage('work'),
        driver.seal('work'),
        driver.checkpoint('copy', 'work'),
        changesOf(driver, 'work', { contents: true }).then((changes) =>
          seen.push(...changes.map((change) => change.path)),
        ),
        driver.remove('gone'),
      ]);
      const [mounted] = await Promise.allSettled([driver.mount('work', target)]);
      if (mounted.status === 'fulfilled') {
        seen.push(...readdirSync(target));
        await driver.unmount(target);
      }
      await Promise.allSettled([driver.commit('committed', 'work'), driver.delete('settled')]);
      await driver.cleanup().catch(() => {});
      if (what === 'backups/') {
        await waitFor('a backup to be refused', () => warnings.some((text) => text.includes('backups')));
      }
      expect(seen.filter((name) => name.endsWith('foreign'))).toEqual([]);
      expect(treeOf(elsewhere)).toBe(before);
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(SnapshotError);
      }
      await driver.close();
      expect(treeOf(elsewhere)).toBe(before);
    },
  );
});

/** All that there is to know of a directory and below it. */
function treeOf(directory: string): string {
  return sh(
    `find . -printf '%p %y %m %i %s %T@ %C@\\n' | sort; find . -type f -exec sha256sum {} + | sort`,
    directory,
  );
}

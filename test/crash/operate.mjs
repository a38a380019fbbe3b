// Does one operation on a store that `fixture` has made, and says what came of it; a run of this is killed or made to
// fail at one system call after the other.
// usage: node operate.mjs ROOT OPERATION
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Fills a layer with some of everything. */
function fill(layer, files) {
  mkdirSync(`${layer}/d`);
  for (let i = 0; i < files; i += 1) writeFileSync(`${layer}/d/f${i}`, `contents of ${i}`);
  linkSync(`${layer}/d/f0`, `${layer}/again`);
  symlinkSync('d/f0', `${layer}/link`);
  execFileSync('sh', ['-c', 'mkfifo fifo && setfattr -n user.a -v b d/f0'], { cwd: layer });
}

/** What an operation below works on, and little else; made with a driver that leaves all deletion to cleanup. */
export async function fixture(driver, operation) {
  const layer = async (key) => `${(await driver.stat(key)).directory}/fs`;
  await driver.prepare('making base');
  fill(await layer('making base'), 3);
  await driver.commit('base', 'making base', { labels: { a: 'b' } });
  await driver.prepare('making leaf', 'base');
  fill(await layer('making leaf'), 2);
  await driver.commit('leaf', 'making leaf');
  await driver.prepare('active', 'base', { labels: { c: 'd' } });
  fill(await layer('active'), operation === 'commit of many files' ? 80 : 3);
  await driver.prepare('unmeant');
  fill(await layer('unmeant'), 2);
  await driver.cleanup();
  if (operation !== 'cleanup') return;
  await driver.remove('unmeant');
  await driver.delete('leaf');
  await driver.commit('late', 'active');
}

/** Each of what can be done to a store; given a driver that has it open. */
export const operations = {
  open: async () => {},
  'prepare of a base': (driver) => driver.prepare('new', null, { labels: { e: 'f' } }),
  'prepare on a parent': (driver) => driver.prepare('new', 'base', { labels: { e: 'f' } }),
  'view of nothing': (driver) => driver.view('new'),
  'view on a parent': (driver) => driver.view('new', 'base'),
  commit: (driver) => driver.commit('new', 'active', { labels: { e: 'f' } }),
  'commit of many files': (driver) => driver.commit('new', 'active'),
  checkpoint: (driver) => driver.checkpoint('new', 'active', { labels: { e: 'f' } }),
  'commit of a copy': (driver) => driver.commit('new', 'active', { inUse: 'copy' }),
  update: (driver) => driver.update('base', { labels: { e: 'f' } }),
  remove: (driver) => driver.remove('unmeant'),
  delete: (driver) => driver.delete('leaf'),
  transaction: async (driver) => {
    const seal = await driver.seal('active');
    await driver.transaction((tx) => {
      tx.commit('new', 'active', { seal });
      tx.prepare('newer', 'new');
      tx.prepare('in between');
      tx.commit('newest', 'in between');
      tx.remove('unmeant');
      tx.update('base', { labels: { e: 'f' } });
    });
  },
  cleanup: (driver) => driver.cleanup(),
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { OverlayDriver } = await import('../../src/index.ts');
  const [root, name] = process.argv.slice(2);
  const say = (text) => writeSync(1, `${text}\n`);
  const attempt = async (body) => {
    try {
      await body();
      say('done');
    } catch (error) {
      say(
        error?.constructor?.name === 'SnapshotError'
          ? error.code
          : `not a SnapshotError: ${String(error?.stack)}`,
      );
      return false;
    }
    return true;
  };
  let driver;
  const perform = async () => {
    driver ??= await OverlayDriver.open(root);
    await operations[name](driver);
  };
  // Once more, as a service would.
  if (!(await attempt(perform))) await attempt(perform);
  say('ended');
  // Not by its own exit, at which koffi syncs standard output and never returns if that fails.
  process.kill(process.pid, 'SIGKILL');
}

// Does all that goes through a layer to one that is many directories deep, and says how it went.
// usage: node deep-layer.mjs ROOT LEVELS
import { linkSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root, levels] = process.argv.slice(2);
const driver = await OverlayDriver.open(root, { backups: false, seal: 'content' });
await driver.prepare('making base');
await driver.commit('base', 'making base');
await driver.prepare('k', 'base');
const layer = `${(await driver.stat('k')).directory}/fs`;
const home = process.cwd();

/** Makes the directories, or goes through them. */
const goDown = (top, make) => {
  process.chdir(top);
  for (let level = 0; level < Number(levels); level += 1) {
    if (make) mkdirSync('d');
    process.chdir('d');
  }
};
goDown(layer, true);
writeFileSync('first', 'linked');
linkSync('first', 'second');
mkdirSync('z');
process.chdir(home);

const changes = async (name) => {
  let count = 0;
  for await (const _ of driver.diff(name)) count += 1;
  return count;
};
const { usage } = await driver.seal('k');
const before = await changes('k');
const copy = await driver.checkpoint('copy', 'k');
const after = await changes('copy');
const { seal } = await driver.commit('n', 'k');
goDown(`${copy.directory}/fs`, false);
const { nlink } = statSync('second');
process.chdir(home);
const checked = await driver.check({ contents: true });
const deletions = [await driver.delete('copy'), await driver.delete('n')];
await driver.close();
console.log(
  JSON.stringify({
    inodes: usage.inodes,
    changes: [before, after],
    same: copy.seal === seal,
    nlink,
    findings: checked.findings.map(({ code }) => code),
    deletions,
  }),
);

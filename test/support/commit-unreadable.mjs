// Commits, as someone other than root, layers that hold what he may not read, and says what came of it.
// usage: node commit-unreadable.mjs ROOT
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root] = process.argv.slice(2);
const driver = await OverlayDriver.open(root, { seal: 'content' });
const attempt = async (key) => {
  const code = await driver.commit('n', key).then(
    () => 'OK',
    (error) => error.code,
  );
  return { code, kind: (await driver.stat(key)).kind };
};
await driver.prepare('directory');
const directory = `${(await driver.stat('directory')).directory}/fs/d`;
mkdirSync(directory);
chmodSync(directory, 0);
await driver.prepare('file');
const file = `${(await driver.stat('file')).directory}/fs/f`;
writeFileSync(file, 'secret');
chmodSync(file, 0);
const outcome = { directory: await attempt('directory'), file: await attempt('file') };
chmodSync(file, 0o400);
await driver.commit('n', 'file');
outcome.afterwards = (await driver.stat('n')).kind;
// Its owner may not enter it, but may delete it.
await driver.remove('directory');
await driver.close();
console.log(JSON.stringify(outcome));

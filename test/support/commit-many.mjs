// Commits layers and says what it is about to do, for a trace of its system calls.
// usage: node commit-many.mjs ROOT COUNT DURABILITY [again | dirty]
import { writeFileSync, writeSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root, count, durability, again] = process.argv.slice(2);
const say = (text) => writeSync(1, `${text}\n`);
const driver = await OverlayDriver.open(root, { durability });
const keys = Array.from({ length: Number(count) }, (_, i) => `k${i}`);
await Promise.all(keys.map((key) => driver.prepare(key)));
for (const key of keys) writeFileSync(`${(await driver.stat(key)).directory}/fs/file`, key);

if (again === 'dirty') writeFileSync(`${root}/dirty`, Buffer.alloc(128 * 1024 * 1024, 'x'));

async function commitAll() {
  say('committing');
  for (const { status, reason } of await Promise.allSettled(
    keys.map((key) => driver.commit(`n ${key}`, key)),
  )) {
    if (status === 'rejected') say(`code ${reason.code}`);
  }
  say('done');
}
if (count === '1') {
  say('sealing');
  const seal = await driver.seal('k0');
  say('sealed');
  await driver.transaction((tx) => tx.commit('n', 'k0', { seal }));
  say('committed');
} else {
  await commitAll();
}
if (again === 'again') {
  await commitAll();
  await driver.prepare('new');
  const code = await driver.commit('n', 'new').then(
    () => 'OK',
    (error) => error.code,
  );
  say(`code of a new one ${code}`);
  const active = await Promise.all(keys.map((key) => driver.stat(key)));
  say(`active ${active.filter(({ kind }) => kind === 'active').length}`);
}
// Not by its own exit, at which koffi syncs standard output and never returns if that fails.
process.kill(process.pid, 'SIGKILL');

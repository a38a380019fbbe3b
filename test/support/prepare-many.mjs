// Prepares one snapshot after the other and prints what became of each, a line of JSON each.
// usage: node prepare-many.mjs ROOT COUNT
import { writeSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root, count] = process.argv.slice(2);
const driver = await OverlayDriver.open(root);
for (let i = 0; i < Number(count); i += 1) {
  const key = `k${i}`;
  const code = await driver.prepare(key).then(
    () => 'OK',
    (error) => error.code,
  );
  writeSync(1, `${JSON.stringify({ key, code })}\n`);
}
// Not by its own exit, at which koffi syncs standard output and never returns if that fails.
process.kill(process.pid, 'SIGKILL');

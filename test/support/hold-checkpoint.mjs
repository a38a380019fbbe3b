// Stops in the middle of a checkpoint of the key "k", says "holding", and goes on when it reads a line.
// usage: node hold-checkpoint.mjs ROOT
import { readSync, writeSync } from 'node:fs';
import { OverlayDriver } from '../../dist/index.js';

const [root] = process.argv.slice(2);
const driver = await OverlayDriver.open(root);
let held = false;
await driver.checkpoint('n', 'k', {
  onProgress({ phase }) {
    if (phase !== 'measuring' || held) return;
    held = true;
    writeSync(1, 'holding\n');
    readSync(0, Buffer.alloc(1));
  },
});
await driver.close();
writeSync(1, 'done\n');

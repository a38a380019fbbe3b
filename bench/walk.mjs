// Walks a store in a process of its own and tells what that took. usage: node bench/walk.mjs ROOT COUNT
import { OverlayDriver } from '../dist/index.js';

const [, , root, count] = process.argv;
const driver = await OverlayDriver.open(root, { durability: 'metadata', asyncRemove: true, backups: false });
const before = process.memoryUsage.rss();
const begun = performance.now();
let seen = 0;
for await (const info of driver.snapshots()) seen += Number(info.id > 0);
if (seen !== Number(count)) throw new Error(`${seen} snapshots and not ${count}`);
const milliseconds = performance.now() - begun;
await driver.close();
const peakBytes = process.resourceUsage().maxRSS * 1024;
console.log(JSON.stringify({ peakBytes, bytes: peakBytes - before, milliseconds }));

// Runs the whole contract as whoever runs this, with the driver's own mounts, and says how it went.
// usage: unshare -Urm node rootless-conformance.mjs DIRECTORY
import { mkdtempSync, rmSync } from 'node:fs';
import { conformanceCases } from '../../dist/conformance/index.js';
import { OverlayDriver } from '../../dist/index.js';
import { withMount } from '../../dist/mount/index.js';

const [directory] = process.argv.slice(2);
process.env.TMPDIR = directory;
const failed = [];
let passed = 0;
const cases = conformanceCases({
  async open() {
    const root = mkdtempSync(`${directory}/root-`);
    const snapshotter = await OverlayDriver.open(root);
    return {
      snapshotter,
      async close() {
        await snapshotter.close();
        rmSync(root, { recursive: true });
      },
    };
  },
  withMount,
});
for (const { name, run } of cases) {
  try {
    await run();
    passed += 1;
  } catch (error) {
    failed.push(`${name}: ${error.stack}`);
  }
}
console.log(JSON.stringify({ passed, failed }));

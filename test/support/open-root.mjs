// Opens the store under a root and says how that went, in one line of JSON.
// usage: node open-root.mjs ROOT
import { OverlayDriver } from '../../dist/index.js';

const [root] = process.argv.slice(2);
try {
  const driver = await OverlayDriver.open(root);
  await driver.prepare(`opener-${process.pid}`);
  await driver.close();
  console.log(JSON.stringify({ opened: true }));
} catch (error) {
  console.log(JSON.stringify({ opened: false, code: error.code, message: error.message }));
}

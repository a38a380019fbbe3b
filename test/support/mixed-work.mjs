// Works on a root that others work on too, and prints what it acknowledged as one line of JSON.
// usage: node mixed-work.mjs ROOT NAME OPERATIONS
// With "on" for the number of operations, it works until its standard input ends.
import { OverlayDriver } from '../../dist/index.js';

const [root, name, operations] = process.argv.slice(2);
const driver = await OverlayDriver.open(root);
const mine = new Map(); // key or name → 'active' or 'committed'
const parents = new Set();
const failures = [];
let most = operations === 'on' ? Infinity : Number(operations);
if (operations === 'on') process.stdin.once('end', () => (most = 0)).resume();

for (let i = 0; i < most; i += 1) {
  const key = `${name}-${i}`;
  const open = [...mine].filter(([, kind]) => kind === 'active').map(([active]) => active);
  const leaves = [...mine]
    .filter(([leaf, kind]) => kind === 'committed' && !parents.has(leaf))
    .map(([leaf]) => leaf);
  try {
    if (i % 7 === 3 && open.length > 0) {
      await driver.commit(`${key}-committed`, open[0]);
      mine.delete(open[0]);
      mine.set(`${key}-committed`, 'committed');
    } else if (i % 7 === 4 && open.length > 1) {
      await driver.remove(open.at(-1));
      mine.delete(open.at(-1));
    } else if (i % 7 === 5 && leaves.length > 3) {
      await driver.delete(leaves[0]);
      mine.delete(leaves[0]);
    } else if (i % 7 === 6) {
      await driver.transaction((tx) => {
        tx.prepare(key);
        tx.commit(`${key}-at-once`, key);
      });
      mine.set(`${key}-at-once`, 'committed');
    } else {
      const parent = i % 2 === 0 ? leaves.at(-1) : undefined;
      await driver.prepare(key, parent, { labels: { worker: name } });
      if (parent !== undefined) parents.add(parent);
      mine.set(key, 'active');
    }
  } catch (error) {
    failures.push(`${error.code}: ${error.message}`);
  }
}
await driver.close();
console.log(JSON.stringify({ mine: Object.fromEntries(mine), failures }));

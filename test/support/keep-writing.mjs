// Replaces one file and appends to another in a directory without end, and says so once it has begun.
// usage: node keep-writing.mjs DIRECTORY
import { appendFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';

const [directory] = process.argv.slice(2);
for (let i = 1; ; i += 1) {
  writeFileSync(`${directory}/replacement`, `${i} `.repeat(20_000));
  renameSync(`${directory}/replacement`, `${directory}/replaced`);
  appendFileSync(`${directory}/log`, `line ${i}\n`);
  if (i === 1) writeSync(1, 'writing\n');
}

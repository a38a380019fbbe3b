import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import BetterSqlite3 from 'better-sqlite3';

/** What the figures were measured on. */
export function machine(root) {
  const db = new BetterSqlite3(':memory:');
  const sqlite = db.prepare('select sqlite_version()').pluck().get();
  db.close();
  const [, filesystem = 'unknown'] = execFileSync('df', ['--output=fstype', root], {
    encoding: 'utf8',
  }).split('\n');
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    processors: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
    filesystem,
    node: process.version,
    sqlite,
  };
}

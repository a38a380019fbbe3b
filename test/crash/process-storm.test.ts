import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { missing } from '../support/tree.ts';
import { makeRoot } from '../support/store.ts';
import { Oracle, type Plan } from './oracle.ts';

const workload = fileURLToPath(new URL('workload.mjs', import.meta.url));
const lacking = missing('sqlite3');
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

const PROCESSES = 8;
/** How long it goes on: `STORM_SECONDS=600` for a longer one. */
const seconds = Number(process.env['STORM_SECONDS'] ?? 60);

/** Runs a workload and kills it after a while. */
async function runAndKill(plan: Plan, milliseconds: number): Promise<void> {
  writeFileSync(plan.log, '');
  const child = spawn(process.execPath, [workload, JSON.stringify(plan)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await Promise.race([ended, sleep(milliseconds)]);
  child.kill('SIGKILL');
  await ended;
}

test.skipIf(needs !== '')(
  `eight processes work on one root, are killed and started again, and nothing is lost${needs}`,
  async () => {
    const { root, remove } = makeRoot();
    try {
      const logs: string[] = [];
      const store = join(root, 'store');
      mkdirSync(store, { mode: 0o700 });
      const until = Date.now() + seconds * 1000;
      const keepRunning = async (number: number): Promise<void> => {
        for (let run = 0; Date.now() < until; run += 1) {
          const name = `p${number}r${run}`;
          const log = join(root, `log-${name}`);
          logs.push(log);
          const seed = number * 1000 + run;
          await runAndKill(
            { root: store, log, name, seed, lanes: 2, shared: true },
            200 + Math.random() * 3000,
          );
        }
      };
      await Promise.all(Array.from({ length: PROCESSES }, (_, number) => keepRunning(number)));
      const { violations, acknowledged, refused } = await new Oracle().judge(store, logs);
      const copies = logs.flatMap((log) => readFileSync(log, 'utf8').match(/"kind":"checkpoint"/g) ?? []);
      console.log(
        `${PROCESSES} processes for ${seconds} s: ${logs.length} kills, ${acknowledged} acknowledged changes, ` +
          `${copies.length} checkpoints begun; lost: ${violations.length}`,
      );
      expect(violations).toEqual([]);
      expect(refused).toEqual([]);
      expect(acknowledged).toBeGreaterThan(PROCESSES);
    } finally {
      remove();
    }
  },
  60_000 + seconds * 5000,
);

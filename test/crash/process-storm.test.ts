import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { amount, firstSeed, limitFor, randomFrom, sampled } from '../support/sample.ts';
import { waitFor } from '../support/wait-for.ts';
import { Oracle, type Plan } from './oracle.ts';

const workload = fileURLToPath(new URL('workload.mjs', import.meta.url));
const lacking = needs('sqlite3');

const PROCESSES = 8;
/** How often each of them is started and killed. */
const runs = amount({ some: 3, others: 6, all: 30 });

/** Runs a workload and kills it: most often at work, and else while it starts. */
async function runAndKill(plan: Plan, random: (below: number) => number): Promise<void> {
  writeFileSync(plan.log, '');
  const child = spawn(process.execPath, [workload, JSON.stringify(plan)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  if (random(5) > 0) {
    const isReady = (): boolean => readFileSync(plan.log, 'utf8').includes('ready');
    await waitFor('the workload', () => isReady() || child.exitCode !== null);
  }
  await Promise.race([ended, sleep(random(2000))]);
  child.kill('SIGKILL');
  await ended;
}

test.skipIf(lacking)(
  `eight processes that work on one root and are killed again and again lose nothing${lacking}`,
  ({ place }) =>
    sampled(async () => {
      const logs: string[] = [];
      const store = join(place, 'store');
      mkdirSync(store, { mode: 0o700 });
      const keepRunning = async (number: number): Promise<void> => {
        for (let run = 0; run < runs; run += 1) {
          const name = `p${number}r${run}`;
          const log = join(place, `log-${name}`);
          logs.push(log);
          const seed = firstSeed + number * 1000 + run;
          await runAndKill({ root: store, log, name, seed, lanes: 2, shared: true }, randomFrom(seed));
        }
      };
      await Promise.all(Array.from({ length: PROCESSES }, (_, number) => keepRunning(number)));
      const { violations, acknowledged, refused } = await new Oracle().judge(store, logs);
      const copies = logs.flatMap((log) => readFileSync(log, 'utf8').match(/"kind":"checkpoint"/g) ?? []);
      console.log(
        `${PROCESSES} processes: ${logs.length} kills, ${acknowledged} acknowledged changes, ` +
          `${copies.length} checkpoints begun; lost: ${violations.length}`,
      );
      expect(violations).toEqual([]);
      expect(refused).toEqual([]);
      expect(acknowledged).toBeGreaterThan(PROCESSES);
    }),
  limitFor(runs),
);

import { execFileSync, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ensureFileSync, removeSync } from 'fs-extra/esm';
import { bootGuest } from '../kernel/guest.mjs';
import { type Disk, type FilesystemType, makeDisk } from '../support/disk.ts';
import { waitFor } from '../support/wait-for.ts';
import { Oracle, type Plan } from './oracle.ts';

const workload = fileURLToPath(new URL('workload.mjs', import.meta.url));

/** After how many cuts a disk is made anew. */
const CUTS_A_DISK = 8;

const kinds = ['prepare', 'commit', 'checkpoint', 'transaction', 'remove', 'delete', 'view'];

/** What is cut, and how often. */
export interface Cuts {
  readonly type: FilesystemType;
  readonly cuts: number;
  /** Decides what the workloads do and when they are cut. */
  readonly seed: number;
  readonly plan?: Pick<Plan, 'durability' | 'synchronous'>;
  /** Stop at the first cut that loses something. */
  readonly untilLoss?: boolean;
}

/** What was found. */
export interface Outcome {
  readonly cuts: number;
  readonly acknowledged: number;
  readonly inReusedWal: number;
  /** Each with the seed of its cut. */
  readonly violations: string[];
}

/**
 * Cuts the power of a disk under a workload again and again, at random instants and right after acknowledgements, and
 * lets the oracle judge what is there when the disk is mounted again.
 */
export async function cutPower({ type, cuts, seed, plan, untilLoss = false }: Cuts): Promise<Outcome> {
  const outcome = { cuts: 0, acknowledged: 0, inReusedWal: 0, violations: [] as string[] };
  const scratch = mkdtempSync(join(tmpdir(), 'overlite-cuts-'));
  let disk: Disk | undefined;
  let oracle = new Oracle();
  try {
    for (let cut = 0; cut < cuts; cut += 1) {
      if (disk === undefined || cut % CUTS_A_DISK === 0) {
        disk?.remove();
        disk = makeDisk(type, 320);
        oracle = new Oracle();
      }
      const log = join(scratch, `log-${cut}`);
      const mount = join(scratch, `mount-${cut}`);
      mkdirSync(mount);
      ensureFileSync(log);
      const kind = kinds[(seed + cut) % kinds.length] ?? 'commit';
      const dirty = join(scratch, 'dirty');
      const chosen = cut % 2 === 0 ? { cutAfter: { kind, count: 1 + ((seed * 31 + cut) % 12) } } : {};
      const { path, root } = disk;
      const common = { ...plan, ...chosen, log, name: `c${cut}`, seed: seed + cut, lanes: 3 };
      const withDirty = cut % 3 === 2;
      // xfs_io cannot cut the power of btrfs.
      if (type === 'btrfs') {
        await disk.unmounted((image) =>
          runAndKill(image, scratch, { ...common, ...(withDirty && { dirty: '/run/dirty' }) }),
        );
      } else {
        await runAndCut({ ...common, ...(withDirty && { dirty }), root, mount, disk: path });
        removeSync(dirty);
        disk.remount();
      }
      const { violations, acknowledged, inReusedWal } = await oracle.judge(root, [log]);
      outcome.cuts += 1;
      outcome.acknowledged += acknowledged;
      outcome.inReusedWal += inReusedWal;
      outcome.violations.push(...violations.map((text) => `seed ${seed + cut}: ${text}`));
      if (violations.length > 0) {
        if (untilLoss) return outcome;
        // What is lost is lost; the next cuts are judged by themselves.
        disk.remove();
        disk = undefined;
      }
    }
    return outcome;
  } finally {
    disk?.remove();
    removeSync(scratch);
  }
}

/** Runs a workload until the power of its disk is cut, by itself or, if it takes long, from outside. */
async function runAndCut(plan: Plan & { disk: string }): Promise<void> {
  // In a mount namespace of its own, whose mounts go with it.
  const args = ['-m', '--propagation', 'private', process.execPath, workload, JSON.stringify(plan)];
  const child = spawn('unshare', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  try {
    const isReady = (): boolean => readFileSync(plan.log, 'utf8').includes('ready');
    await waitFor('the workload', () => isReady() || child.exitCode !== null || child.signalCode !== null);
    const patience = plan.cutAfter === undefined ? 50 + ((plan.seed * 7919) % 1500) : 2500;
    await Promise.race([ended, sleep(patience)]);
    if (isOn(plan.disk)) execFileSync('xfs_io', ['-x', '-c', 'shutdown', plan.disk], { stdio: 'pipe' });
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

/** Runs a workload in a machine whose disk is on an image, until the power of that machine is cut. */
async function runAndKill(
  image: string,
  scratch: string,
  plan: Omit<Plan, 'root' | 'machine'>,
): Promise<void> {
  const work = join(scratch, `machine-${plan.name}`);
  mkdirSync(work);
  const inMachine = { ...plan, root: '/media/root', log: '/run/shared/log', mount: '/run', machine: true };
  const command = [process.execPath, workload, JSON.stringify(inMachine)];
  const guest = bootGuest({ filesystem: 'btrfs', image, work, command });
  let isOff = false;
  const off = guest.ended.finally(() => {
    isOff = true;
  });
  try {
    const has = (word: string): boolean =>
      existsSync(join(work, 'log')) && readFileSync(join(work, 'log'), 'utf8').includes(`{"${word}":true}`);
    await waitFor('the workload', () => has('ready') || isOff);
    const patience = plan.cutAfter === undefined ? 500 + ((plan.seed * 7919) % 5000) : 10_000;
    const until = performance.now() + patience;
    await waitFor('the cut', () => has('cut') || isOff || performance.now() > until);
    if (isOff) throw new Error(`the machine was off before its power was cut: ${await off}`);
  } finally {
    guest.kill();
    await off;
  }
  copyFileSync(join(work, 'log'), plan.log);
  removeSync(work);
}

function isOn(disk: string): boolean {
  try {
    readdirSync(disk);
    return true;
  } catch {
    return false;
  }
}

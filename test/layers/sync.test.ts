import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { makeDisk } from '../support/disk.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const script = join(import.meta.dirname, '../support/commit-many.mjs');

interface Trace {
  readonly calls: readonly string[];
  readonly printed: string;
}

interface Tracing {
  readonly root?: string;
  /** More options for strace. */
  readonly options?: readonly string[];
}

const test = base.extend<{
  /** Traces what a process syncs that commits layers. */
  trace: (args: readonly string[], tracing?: Tracing) => Trace;
}>({
  trace: async ({ place, root }, use) => {
    const log = join(place, 'trace');
    await use((args, { root: at = root, options = [] } = {}) => {
      const wanted = ['-f', '-y', '-qq', '-o', log, '-e', 'trace=fsync,syncfs,write', ...options];
      const { stdout } = spawnSync('strace', [...wanted, process.execPath, script, at, ...args], {
        encoding: 'utf8',
        // strace counts the calls of each thread by itself.
        env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
      });
      return { calls: readFileSync(log, 'utf8').split('\n'), printed: stdout };
    });
  },
});

/** Which calls were made between two things that the process wrote. */
function between({ calls }: Trace, from: string, to: string): readonly string[] {
  const of = (text: string): number => calls.findIndex((call) => call.includes(`"${text}\\n"`));
  return calls.slice(of(from), of(to));
}

function count(calls: readonly string[], pattern: RegExp): number {
  return calls.filter((call) => pattern.test(call)).length;
}

const lacking = needs('strace');
const lackingDisk = needs('root', 'mkfs.ext4');

describe.skipIf(lacking)(`what a commit syncs${lacking}`, () => {
  test('a commit syncs the layer before the row', ({ trace }) => {
    const traced = trace(['1', 'full']);
    const sealing = between(traced, 'sealing', 'sealed');
    expect(count(sealing, /syncfs\(/)).toBe(1);
    expect(count(sealing, /fsync\(.*metadata\.db/)).toBe(0);
    const committing = between(traced, 'sealed', 'committed');
    expect(count(committing, /fsync\(.*metadata\.db-wal/)).toBeGreaterThan(0);
  });

  test('commits that wait at the same moment share a sync', ({ trace }) => {
    const syncs = count(between(trace(['32', 'full']), 'committing', 'done'), /syncfs\(/);
    expect(syncs).toBeGreaterThan(0);
    expect(syncs).toBeLessThan(8);
  });

  test.skipIf(lackingDisk)(
    `a commit syncs each file of a small layer where much else waits to be written${lackingDisk}`,
    ({ trace }) => {
      // On a disk of its own, where no other test syncs; but the kernel may have written it all before the commit.
      for (let attempt = 1; ; attempt += 1) {
        const disk = makeDisk('ext4', 320);
        try {
          const sealing = between(trace(['1', 'full', 'dirty'], { root: disk.root }), 'sealing', 'sealed');
          if (attempt < 10 && count(sealing, /syncfs\(/) > 0) continue;
          expect(count(sealing, /syncfs\(/)).toBe(0);
          // A path in a clone of the mount begins at the layer.
          expect(count(sealing, /fsync\(\d+<(\/|.*\/fs)>/)).toBe(1);
          expect(count(sealing, /fsync\(\d+<(|.*\/fs)\/file>/)).toBe(1);
          return;
        } finally {
          disk.remove();
        }
      }
    },
  );

  test('a commit with durability: "metadata" syncs no layer', ({ trace }) => {
    expect(count(trace(['4', 'metadata']).calls, /syncfs\(/)).toBe(0);
  });

  test('a sync that fails is the error of all commits that waited for it, and of later ones of those layers', ({
    trace,
  }) => {
    const options = ['-e', 'inject=syncfs:error=EIO:when=1'];
    const lines = trace(['4', 'full', 'again'], { options }).printed.trim().split('\n');
    expect(lines.filter((line) => line.startsWith('code'))).toEqual([
      ...Array.from({ length: 4 }, () => 'code DATA_LOSS'),
      ...Array.from({ length: 4 }, () => 'code DATA_LOSS'),
      'code of a new one OK',
    ]);
    expect(lines).toContain('active 4');
  });
});

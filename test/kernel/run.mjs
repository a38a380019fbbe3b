// Runs tests on a second kernel, see guest.mjs, with a new filesystem for their temporary files. It needs root.
// usage: node test/kernel/run.mjs [--sample] [--reports DIRECTORY] [--on FILESYSTEM] [FILE...]
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bootGuest } from './guest.mjs';

/** How long one kernel may run, in milliseconds: that ends what hangs. */
const LIMIT_MS = 3_600_000;

/** The tests that cover each way to use a snapshot, and the filesystem on which each way is sampled. */
const WAYS = [
  { sampled: 'ext4', files: ['mount/method', 'mount/mount', 'mount/bind', 'mount/idmap', 'linux/probe'] },
  { sampled: 'xfs', files: ['driver/mounter', 'driver/diff', 'linux/namespace'] },
  { sampled: 'btrfs', files: ['layers/volatile', 'cli/mount'] },
  {
    files: [
      'mount/overlay',
      'layers/overlay-use',
      'layers/store-mounts',
      'driver/committer',
      'check/check',
      'cli/run',
    ],
  },
  // Where files are not cloned: a clone is of one moment.
  { only: 'ext4', files: ['layers/copy'] },
];

const { values, positionals } = parseArgs({
  options: { sample: { type: 'boolean' }, reports: { type: 'string' }, on: { type: 'string' } },
  allowPositionals: true,
});
const checkout = join(import.meta.dirname, '../..');
const work = mkdtempSync(join(tmpdir(), 'overlite-kernel-'));
const reports = values.reports ?? work;

function filesOn(filesystem) {
  if (positionals.length > 0) return positionals;
  const isChosen = ({ sampled, only = filesystem }) =>
    values.sample === true ? sampled === filesystem : only === filesystem;
  return WAYS.filter(isChosen).flatMap(({ files }) => files.map((file) => `test/${file}.test.ts`));
}

/** Boots the kernel once. @returns how many tests passed and failed there, and the report of Vitest */
async function runOn(filesystem) {
  const place = join(work, filesystem);
  const image = `${place}.img`;
  execFileSync('mkdir', [place]);
  writeFileSync(image, '');
  truncateSync(image, 4 * 1024 ** 3);
  execFileSync(`mkfs.${filesystem}`, ['-q', image]);
  const { TEST_SEED = '1' } = process.env;
  const guest = bootGuest({
    filesystem,
    image,
    work: place,
    env: { CI: '1', NO_COLOR: '1', TEST_SEED },
    command: [process.execPath, 'node_modules/vitest/vitest.mjs', 'run', '--configLoader', 'runner']
      .concat('--reporter=default', '--reporter=json', '--outputFile.json=/run/shared/report.json')
      .concat(filesOn(filesystem)),
  });
  const timer = setTimeout(guest.kill, LIMIT_MS);
  const printed = await guest.ended;
  clearTimeout(timer);
  console.log(printed.replaceAll(/^/gm, `${filesystem}: `));
  rmSync(image);
  const report = join(place, 'report.json');
  if (!existsSync(report))
    throw new Error(`the kernel has ended without a report of the tests on ${filesystem}`);
  if (values.reports !== undefined) cpSync(report, join(reports, `kernel-${filesystem}.json`));
  return JSON.parse(readFileSync(report, 'utf8'));
}

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

try {
  // The tests on this kernel build what the guests, which cannot write to the checkout, load.
  const args = ['node_modules/vitest/vitest.mjs', 'run', 'test/mount/method.test.ts'];
  execFileSync(process.execPath, args, { cwd: checkout, stdio: 'inherit' });
  const filesystems = values.on === undefined ? ['ext4', 'xfs', 'btrfs'] : [values.on];
  const runs = filesystems.map(runOn);
  await Promise.allSettled(runs);
  const found = await Promise.all(runs);
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const [index, report] of found.entries()) {
    total.passed += report.numPassedTests;
    total.failed += report.numFailedTests;
    total.skipped += report.numPendingTests + report.numTodoTests;
    const counts = `${report.numPassedTests} passed, ${report.numFailedTests} failed`;
    console.log(`on ${filesystems[index]}: ${counts}`);
    if (!report.success) process.exitCode = 1;
  }
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

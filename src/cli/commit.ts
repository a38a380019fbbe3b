import { Option } from 'commander';
import type { OverlayDriver } from '../driver/driver.ts';
import type { CommitOptions, Info, Labels, Progress } from '../snapshot.ts';
import {
  type CommittingOptions,
  durabilityOption,
  labelOption,
  sealOption,
  writeCommand,
} from './command.ts';
import { say, sayJson, shown, toJson } from './output.ts';
import { ProgressBar } from './progress.ts';
import { stopSignal } from './stopping.ts';
import { openStore } from './store.ts';
import { bytes } from './units.ts';

interface CaptureCommandOptions extends CommittingOptions {
  readonly label?: Labels;
}

/** `overlite commit` */
export const commitCommand = writeCommand(
  'commit',
  'Turn an active snapshot into a committed one, to build others on',
  {
    examples: [
      'overlite commit base new-base',
      'overlite commit release workspace --in-use refuse --seal content',
    ],
    note: 'When it has succeeded, the snapshot and everything in its layer survive a power cut.',
  },
)
  .argument('<new-name>', 'the name of the committed snapshot')
  .argument('<key>', 'the active snapshot, whose key is gone afterwards')
  .addOption(labelOption())
  .option('--parent <name>', 'the parent, for a snapshot that was prepared without one')
  .addOption(
    new Option('--in-use <what>', 'what to do if it is still mounted')
      .choices(['allow', 'refuse', 'copy'])
      .default('allow'),
  )
  .addOption(sealOption())
  .addOption(durabilityOption())
  .action(
    async (
      name: string,
      key: string,
      options: CaptureCommandOptions & { parent?: string; inUse: NonNullable<CommitOptions['inUse']> },
    ) => {
      const { parent, inUse } = options;
      await capture(key, options, (driver, watched) =>
        driver.commit(name, key, { ...watched, inUse, ...(parent !== undefined && { parent }) }),
      );
    },
  );

/** `overlite checkpoint` */
export const checkpointCommand = writeCommand(
  'checkpoint',
  'Commit a copy of an active snapshot, which stays active',
  {
    examples: [
      'overlite checkpoint before-the-upgrade workspace',
      'overlite checkpoint monday workspace --label day=1',
    ],
  },
)
  .argument('<new-name>', 'the name of the committed snapshot')
  .argument('<key>', 'the active snapshot')
  .addOption(labelOption())
  .addOption(sealOption())
  .addOption(durabilityOption())
  .action(async (name: string, key: string, options: CaptureCommandOptions) => {
    await capture(key, options, (driver, watched) => driver.checkpoint(name, key, watched));
  });

/** Makes a committed snapshot of an active one, and shows a bar meanwhile. */
async function capture(
  key: string,
  options: CaptureCommandOptions,
  run: (driver: OverlayDriver, watched: CommitOptions) => Promise<Info>,
): Promise<void> {
  const { label: labels = {}, seal, durability } = options;
  await using driver = await openStore(options, { seal, durability });
  using bar = new ProgressBar();
  // Only a walk over the whole layer tells the total: not worth it if nobody sees the bar.
  const total = bar.visible ? await driver.usage(key).catch(() => undefined) : undefined;
  const onProgress = ({ phase, inodes, bytes: size }: Progress): void =>
    bar.show({ doing: phase, done: inodes, total: total?.inodes ?? null, detail: bytes(size) });
  const info = await run(driver, { labels, signal: stopSignal, onProgress });
  bar[Symbol.dispose]();
  if (options.json === true) {
    sayJson({ ...toJson(info), usage: await driver.usage(info.name) });
    return;
  }
  const { inodes, size } = await driver.usage(info.name);
  say(`${shown(info.name)} is committed: ${inodes} inodes, ${bytes(size)}`);
  if (info.inUse === true)
    say('It is still in use: whatever is written to its mount from now on damages it.');
}

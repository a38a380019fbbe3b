import { Option } from 'commander';
import type { OverlayDriver } from '../driver/driver.ts';
import type { CommitOptions, Info, Labels, Progress } from '../snapshot.ts';
import { type StoreOptions, labelOption, writeCommand } from './command.ts';
import { say, sayJson, shown, toJson } from './output.ts';
import { ProgressBar } from './progress.ts';
import { stopSignal } from './stopping.ts';
import { openStore } from './store.ts';
import { bytes } from './units.ts';

interface Options extends StoreOptions {
  readonly label?: Labels;
  readonly seal: 'metadata' | 'content';
  readonly durability: 'full' | 'metadata';
}

const sealOption = (): Option =>
  new Option('--seal <what>', 'what a later check can tell changes of: content reads every byte')
    .choices(['metadata', 'content'])
    .default('metadata');

const durabilityOption = (): Option =>
  new Option('--durability <what>', 'metadata leaves out the syncing of the layer')
    .choices(['full', 'metadata'])
    .default('full');

/** `overlite commit` */
export const commitCommand = writeCommand(
  'commit',
  'Seal an active snapshot under a name, for others to build on',
  {
    examples: [
      'overlite commit base new-base',
      'overlite commit release workspace --in-use refuse --seal content',
    ],
    note: 'When it is done, the snapshot and all that its layer holds survive a power cut.',
  },
)
  .argument('<new-name>', 'the name that it gets')
  .argument('<key>', 'the active snapshot, which is gone afterwards')
  .addOption(labelOption())
  .option('--parent <name>', 'what it is to stand on, if it was prepared on nothing')
  .addOption(
    new Option('--in-use <what>', 'what to do when it is still mounted')
      .choices(['allow', 'refuse', 'copy'])
      .default('allow'),
  )
  .addOption(sealOption())
  .addOption(durabilityOption())
  .action(
    async (
      name: string,
      key: string,
      options: Options & { parent?: string; inUse: NonNullable<CommitOptions['inUse']> },
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
  'Capture what an active snapshot holds now; it goes on',
  {
    examples: [
      'overlite checkpoint before-the-upgrade workspace',
      'overlite checkpoint monday workspace --label day=1',
    ],
  },
)
  .argument('<new-name>', 'the name of the new committed snapshot')
  .argument('<key>', 'the active snapshot')
  .addOption(labelOption())
  .addOption(sealOption())
  .addOption(durabilityOption())
  .action(async (name: string, key: string, options: Options) => {
    await capture(key, options, (driver, watched) => driver.checkpoint(name, key, watched));
  });

/** Makes a committed snapshot of an active one, with a bar while that takes. */
async function capture(
  key: string,
  options: Options,
  run: (driver: OverlayDriver, watched: CommitOptions) => Promise<Info>,
): Promise<void> {
  const { label: labels = {}, seal, durability } = options;
  await using driver = await openStore(options, { seal, durability });
  using bar = new ProgressBar();
  // How much there is to do takes a look at all of it, which is for those who watch.
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
  if (info.inUse === true) say('It is still in use: what is written to its mount from now on damages it.');
}

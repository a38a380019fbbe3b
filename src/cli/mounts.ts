import { type StoreOptions, storeCommand } from './command.ts';
import { mountCommand, say, sayJson } from './output.ts';
import { lookAtStore } from './store.ts';

/** `overlite mounts` */
export const mountsCommand = storeCommand('mounts', 'Tell how a snapshot is mounted', {
  examples: ['overlite mounts workspace /mnt', 'overlite mounts workspace --json'],
})
  .argument('<key>', 'an active snapshot or a view')
  .argument('[target]', 'the directory to mount it on', '<target>')
  .action(async (key: string, target: string, options: StoreOptions) => {
    await using driver = await lookAtStore(options);
    const mounts = await driver.mounts(key);
    if (options.json === true) sayJson(mounts);
    else for (const mount of mounts) say(mountCommand(mount, target));
  });

import { type StoreOptions, storeCommand } from './command.ts';
import { mountCommand, say, sayJson } from './output.ts';
import { openStoreToRead } from './store.ts';

/** `overlite mounts` */
export const mountsCommand = storeCommand('mounts', 'Print the command that mounts a snapshot', {
  examples: ['overlite mounts workspace /mnt', 'overlite mounts workspace --json'],
})
  .argument('<key>', 'an active snapshot or a view')
  .argument('[target]', 'the directory to mount it on (default: a placeholder)')
  .action(async (key: string, target: string | undefined, options: StoreOptions) => {
    await using driver = await openStoreToRead(options);
    const mounts = await driver.mounts(key);
    if (options.json === true) sayJson(mounts);
    else for (const mount of mounts) say(mountCommand(mount, target ?? '<target>'));
  });

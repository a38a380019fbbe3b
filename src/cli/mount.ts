import { resolve } from 'node:path';
import { type StoreOptions, byOption, writeCommand } from './command.ts';
import { say, sayJson, shown } from './output.ts';
import { openStore } from './store.ts';
import type { MountMethod } from '../snapshot.ts';

/** `overlite mount` */
export const mountCommand = writeCommand('mount', 'Mount an active snapshot or a view on a directory', {
  examples: ['overlite mount workspace /mnt', 'overlite mount reader /srv/files --json'],
})
  .argument('<key>', 'an active snapshot or a view')
  .argument('<target>', 'a directory on which nothing is mounted')
  .addOption(byOption())
  .action(async (key: string, target: string, options: StoreOptions & { by?: MountMethod }) => {
    const { by } = options;
    await using driver = await openStore(options);
    await driver.mount(key, target, by && { by });
    if (options.json === true) sayJson({ key, target: resolve(target) });
    else say(`${shown(key)} is mounted on ${shown(resolve(target))}`);
  });

/** `overlite unmount` */
export const unmountCommand = writeCommand('unmount', 'Unmount a snapshot', {
  examples: ['overlite unmount /mnt', 'overlite unmount --lazy /mnt'],
})
  .argument('<target>', 'the directory that it is mounted on')
  .option('--lazy', 'take it out of the file tree even if it is in use')
  .action(async (target: string, options: StoreOptions & { lazy?: true }) => {
    await using driver = await openStore(options);
    await driver.unmount(target, { lazy: options.lazy === true });
    if (options.json === true) sayJson({ target: resolve(target) });
    else say(`${shown(resolve(target))} is unmounted`);
  });

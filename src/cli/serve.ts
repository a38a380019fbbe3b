import { Option } from 'commander';
import { type StoreOptions, writeCommand } from './command.ts';
import { stopSignal } from './stopping.ts';
import { OverlayDriver } from '../driver/driver.ts';

interface Options extends StoreOptions {
  readonly address: string;
}

/** `overlite serve` */
export const serveCommand = writeCommand('serve', 'Be a proxy snapshotter of containerd', {
  examples: [
    'overlite serve --root /var/lib/overlite --address /run/overlite/overlite.sock',
    'overlite serve --address /run/overlite/overlite.sock',
  ],
})
  .addOption(new Option('--address <socket>', 'the path of the unix socket').makeOptionMandatory())
  .action(async ({ root, address, busyTimeout }: Options) => {
    const { serve } = await import('../containerd/index.ts');
    await using driver = await OverlayDriver.open(root, {
      asyncRemove: 'background',
      ...(busyTimeout !== undefined && { busyTimeout }),
    });
    await using server = await serve(driver, { address });
    process.stderr.write(`serving on ${server.address}\n`);
    await new Promise((done) => stopSignal.addEventListener('abort', done, { once: true }));
  });

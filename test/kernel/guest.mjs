// Boots user-mode Linux, which Debian has as a package, with the file tree of this machine, read-only. See guest.d.mts.
import { spawn } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const quoted = (word) => `'${word.replaceAll("'", `'\\''`)}'`;

export function bootGuest({ filesystem, image, work, command, env = {} }) {
  cpSync(join(import.meta.dirname, 'init.sh'), join(work, 'init.sh'));
  const set = Object.entries(env).map(([name, value]) => `${name}=${quoted(value)}`);
  const checkout = join(import.meta.dirname, '../..');
  writeFileSync(
    join(work, 'command.sh'),
    `cd ${quoted(checkout)} && ${[...set, ...command.map(quoted)].join(' ')}\n`,
  );
  const options = ['mem=1500M', 'root=/dev/root', 'rootfstype=hostfs', 'rootflags=/', 'ro', `ubda=${image}`]
    .concat(`init=${work}/init.sh`, 'con=null', 'con0=null,fd:1', 'quiet', `uml_dir=${work}`)
    .concat(`WORK=${work}`, `FILESYSTEM=${filesystem}`);
  const kernel = spawn('linux.uml', options, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let printed = '';
  for (const stream of [kernel.stdout, kernel.stderr]) {
    stream.on('data', (data) => {
      printed += String(data).replaceAll('\r', '');
    });
  }
  const ended = new Promise((resolve, reject) => {
    kernel.once('error', reject);
    // When the last of its processes has ended, and so nobody can write to the disk any more.
    kernel.once('close', () => resolve(printed));
  });
  const kill = () => {
    if (kernel.pid === undefined || kernel.exitCode !== null || kernel.signalCode !== null) return;
    // With the processes that it has started, which write to the disk for it.
    process.kill(-kernel.pid, 'SIGKILL');
  };
  process.once('exit', kill);
  return { ended, kill };
}

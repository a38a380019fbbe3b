// Times the same ctr workload on containerd's own overlayfs snapshotter and on overlite, each with a containerd of its
// own that is started anew for every round. Wants root, containerd, ctr, runc, a static busybox
// and 2 GB in the directory for temporary files.
// usage: node bench/containerd.mjs [ROUNDS]
import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { copySync, ensureDirSync, outputFileSync, removeSync } from 'fs-extra/esm';

const run = promisify(execFile);
const rounds = Number(process.argv[2] ?? 5);
const main = join(import.meta.dirname, '../dist/cli/main.js');
const image = 'bench.local/image:1';
const variants = {
  "containerd's overlayfs": null,
  overlite: [],
  'overlite --durability metadata': ['--durability', 'metadata'],
};

/** Builds the image: a busybox, and two layers of some thousand files of up to 8 KiB. Gives its manifest's digest. */
function makeImage(directory) {
  const blobs = join(directory, 'image/blobs/sha256');
  const add = (kind, blob) => {
    const hash = createHash('sha256').update(blob).digest('hex');
    outputFileSync(join(blobs, hash), blob);
    return { mediaType: `application/vnd.oci.image.${kind}`, digest: `sha256:${hash}`, size: blob.length };
  };
  const layer = (name, fill) => {
    const tree = join(directory, name);
    ensureDirSync(tree);
    fill(tree);
    return add('layer.v1.tar', execFileSync('tar', ['-C', tree, '-cf', '-', '.'], { maxBuffer: 1 << 30 }));
  };
  const files = (count) => (tree) => {
    for (let i = 0; i < count; i += 1) {
      const path = join(tree, `files-${count}`, String(i % 50), String(i));
      outputFileSync(path, Buffer.alloc((i * 97) % 8192, i));
    }
  };
  const busybox = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim();
  const layers = [
    layer('base', (tree) => {
      for (const name of ['bin', 'dev', 'proc', 'sys', 'run', 'tmp']) ensureDirSync(join(tree, name));
      copySync(busybox, join(tree, 'bin/busybox'));
    }),
    layer('many', files(5000)),
    layer('more', files(2000)),
  ];
  const config = {
    architecture: { x64: 'amd64' }[process.arch] ?? process.arch,
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: layers.map(({ digest }) => digest) },
  };
  const json = (kind, value) => add(`${kind}.v1+json`, Buffer.from(JSON.stringify(value)));
  const manifest = json('manifest', { schemaVersion: 2, config: json('config', config), layers });
  const index = { ...manifest, annotations: { 'io.containerd.image.name': image } };
  writeFileSync(join(directory, 'image/oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(directory, 'image/index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [index] }),
  );
  execFileSync('tar', ['-C', join(directory, 'image'), '-cf', join(directory, 'image.tar'), '.']);
  return manifest.digest;
}

/** Runs the workload once and gives the milliseconds of each step. */
async function round(directory, manifest, options) {
  // A new filesystem, so that what earlier rounds have deleted is not paid for by this one.
  const at = mkdtempSync(join(directory, 'round-'));
  execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'nodiscard', `${directory}/disk`]);
  execFileSync('mount', ['-o', 'loop', `${directory}/disk`, at]);
  const snapshotter = options === null ? 'overlayfs' : 'overlite';
  const layers =
    options === null ? 'root/io.containerd.snapshotter.v1.overlayfs/snapshots' : 'store/snapshots';
  writeFileSync(
    join(at, 'config.toml'),
    `version = 2
root = "${at}/root"
state = "${at}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${at}/containerd.sock"
[ttrpc]
  address = "${at}/containerd.sock.ttrpc"
[plugins."io.containerd.gc.v1.scheduler"]
  mutation_threshold = 0
  pause_threshold = 0.00001
[proxy_plugins.overlite]
  type = "snapshot"
  address = "${at}/overlite.sock"
`,
  );
  const env = {
    ...process.env,
    CONTAINERD_ADDRESS: `${at}/containerd.sock`,
    CONTAINERD_NAMESPACE: `overlite-bench-${process.pid}`,
    CONTAINERD_SNAPSHOTTER: snapshotter,
  };
  const ctr = (...args) => run('ctr', args, { env, timeout: 120_000 });
  const servers = [];
  const start = (...command) => servers.push(spawn(command[0], command.slice(1), { stdio: 'ignore' }));
  const took = {};
  // What earlier steps have left to be written is not to slow down later ones.
  const step = async (name, fn) => {
    execFileSync('sync');
    const begun = performance.now();
    await fn();
    took[name] = performance.now() - begun;
  };
  try {
    if (options !== null) {
      const where = ['--address', `${at}/overlite.sock`, '--root', `${at}/store`];
      start(process.execPath, main, 'serve', ...where, ...options);
      while (!existsSync(`${at}/overlite.sock`)) await sleep(50);
    }
    start('containerd', '--config', `${at}/config.toml`);
    while (!(await ctr('snapshots', 'list').catch(() => false))) await sleep(50);

    await step('import, without unpacking', () =>
      ctr('images', 'import', '--no-unpack', `${directory}/image.tar`),
    );
    await step('unpack 7,000 files in 3 layers', () => ctr('snapshots', 'unpack', manifest));
    const runc = ['--runc-root', `${at}/runc`, '--fifo-dir', `${at}/fifo`, '--cgroup', ''];
    await step('run a container', () => ctr('run', '--rm', ...runc, image, 'x', '/bin/busybox', 'true'));
    const top = (await ctr('snapshots', 'list')).stdout.trim().split('\n').at(-1).split(' ')[0];
    await step('view a snapshot and remove it', async () => {
      await ctr('snapshots', 'view', 'view', top);
      await ctr('snapshots', 'rm', 'view');
    });
    await ctr('snapshots', 'prepare', 'work', top);
    const upper = /upperdir=([^, ]+)/.exec((await ctr('snapshots', 'mounts', '/mnt', 'work')).stdout)[1];
    for (let i = 0; i < 1000; i += 1) writeFileSync(join(upper, String(i)), 'x'.repeat(4096));
    await step('commit 1,000 files', () => ctr('snapshots', 'commit', 'done', 'work'));
    await ctr('snapshots', 'rm', 'done');
    await step('remove the image and collect garbage', () => ctr('images', 'rm', '--sync', image));
    took['until its directories are gone'] = took['remove the image and collect garbage'];
    const begun = performance.now();
    while (readdirSync(join(at, layers)).length > 0) await sleep(5);
    took['until its directories are gone'] += performance.now() - begun;
  } finally {
    for (const server of servers) {
      const exit = new Promise((resolve) => server.once('exit', resolve));
      if (server.exitCode === null && server.kill('SIGTERM')) await exit;
    }
    execFileSync('umount', [at]);
    rmdirSync(at);
  }
  return took;
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

const directory = mkdtempSync(join(tmpdir(), 'overlite-bench-'));
try {
  const manifest = makeImage(directory);
  execFileSync('fallocate', ['-l', '2G', `${directory}/disk`]);
  const times = new Map(Object.keys(variants).map((name) => [name, []]));
  for (let number = 0; number < rounds; number += 1) {
    for (const [name, options] of Object.entries(variants)) {
      times.get(name).push(await round(directory, manifest, options));
    }
  }
  const steps = Object.keys(times.values().next().value[0]);
  console.log(`median of ${rounds} rounds, in milliseconds, each with the start of ctr`);
  console.table(
    Object.fromEntries(
      steps.map((name) => [
        name,
        Object.fromEntries(
          [...times].map(([of, rows]) => [of, Math.round(median(rows.map((row) => row[name])))]),
        ),
      ]),
    ),
  );
} finally {
  removeSync(directory);
}

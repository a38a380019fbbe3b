import { chmodSync, existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test as base } from 'vitest';
import { ContainerdPair } from '../support/containerd-pair.ts';
import { type ContainerdNode, nodeCommands } from '../support/containerd.ts';
import { needs } from '../support/needs.ts';
import { sh, treeCommands } from '../support/tree.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', ...nodeCommands, ...treeCommands);

const test = base.extend<{ $file: { pair: ContainerdPair } }>({
  pair: [
    // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names of what a fixture needs from its parameter.
    async ({}, use) => {
      const pair = new ContainerdPair();
      try {
        await pair.both((node) => node.start());
        await use(pair);
      } finally {
        await pair.remove();
      }
    },
    { scope: 'file' },
  ],
});

/** What a container does to the image. */
const changes = `
  echo new > /srv/new; touch -d '2001-02-03 04:05:06' /srv/new
  echo appended >> /srv/d; truncate -s 0 /odd/attributes
  rm /srv/e; rm -r /srv/goes /many/1
  rm -r /srv/by-container; mkdir /srv/by-container; echo again > /srv/by-container/again
  mv /srv/f /srv/renamed; mv /srv/kept /srv/moved; mv /srv/gone/other /srv/gone/same
  chmod 4711 /srv/g; chown 12:34 /srv/g; chmod 1711 /odd/attributes.d; chmod 700 /odd/capable
  ln /deep/one /deep/four; rm /deep/two; ln -s new /srv/soft; ln /srv/soft /srv/soft-again
  mkfifo /srv/pipe; mknod /srv/zero c 1 5; rm /odd/fifo; mkdir /odd/fifo
  truncate -s 8M /srv/sparse; echo x | dd of=/srv/sparse bs=1 seek=4000000 conv=notrunc 2>&-
  dd if=/dev/zero of=/srv/filled bs=64k count=16 2>&-
  touch "$(echo -e '/srv/bad\\xff')"
  id; ls -A / /srv; cat /srv/d`;

/** What is done to a snapshot that is mounted on the host, where the tools are. */
const hostChanges = `
  setfattr -n user.note -v host odd/setuid; setfattr -x user.note odd/attributes
  setfattr -n trusted.note -v host srv; setfattr -h -n trusted.note -v host odd/link
  setcap cap_net_bind_service+ep odd/setgid; setfacl -m u:7:rwx,g:8:r odd/empty; setfacl -d -m u:8:r odd/sticky
  chown -h 77:78 odd/dangling; touch -h -d '1999-01-02 03:04:05.123456789' odd/dangling; chmod 2711 srv
  mv many/2 many/two; rm -r many/3; mkdir many/3; cp --sparse=always odd/zeros srv/zeros`;

/** The kind of error with which `ctr` refuses: the words before it are the snapshotter's own. */
function refusal(node: ContainerdNode, ...args: string[]): Promise<string> {
  return node.ctr('snapshots', ...args).then(
    (out) => `not refused: ${out}`,
    (error: unknown) =>
      /^ctr: .*: ([^:]+)\n$/.exec(String(Reflect.get(Object(error), 'stderr')))?.[1] ?? String(error),
  );
}

/** Begins to unpack the large image. @returns once that is in the middle of its second layer, how it will end */
async function beginUnpack(node: ContainerdNode, archive: string): Promise<{ outcome: Promise<string> }> {
  const before = new Set(readdirSync(node.layers));
  const outcome = node.ctr('images', 'import', archive).then(
    () => 'unpacked',
    () => 'failed',
  );
  await waitFor('the second layer to be unpacked', () =>
    readdirSync(node.layers).some(
      (id) => !before.has(id) && existsSync(join(node.layers, id, 'fs/two/first')),
    ),
  );
  return { outcome };
}

/** Unpacks the large image, after an attempt that failed. What that has left is collected. */
async function sameLarge(pair: ContainerdPair): Promise<void> {
  const { both, ours, largeArchive, largeTop } = pair;
  await both((node) => node.ctr('images', 'import', largeArchive));
  await both((node) => node.collect());
  await pair.sameOverview();
  await both((node) => node.ctr('snapshots', 'view', 'view', largeTop));
  await pair.sameFiles('an image whose unpacking was interrupted', 'view');
  await both((node) => node.ctr('snapshots', 'rm', 'view'));
  expect(await ours.overlite('check')).toMatchObject({ status: 'clean' });
}

// The tests go on from one another, as an operator would: later ones have what earlier ones have left.
describe.skipIf(lacking)(`containerd on overlite, beside one on its own overlayfs${lacking}`, () => {
  test.afterEach(({ task, pair }) => {
    if (task.result?.state === 'fail') console.error(pair.log());
  });

  test('containerd unpacks an image on overlite as on overlayfs', async ({
    pair: { ours, archive, chain, same, sameInfo, sameOverview },
  }) => {
    await same('what `ctr` prints', '`images import`', (node) => node.ctr('images', 'import', archive));
    await same('what `ctr` prints', '`images list`', (node) => node.ctr('images', 'list'));
    await same('what `ctr` prints', '`images check`', (node) => node.ctr('images', 'check'));
    const tree = await sameOverview();
    expect(tree.match(/sha256:\w+/g)).toEqual(chain);
    expect(await ours.overlite('list')).toHaveLength(chain.length);
    for (const name of chain) await sameInfo(name);
  });

  test('a view of each layer of an image is as on overlayfs, and cannot be written to', async ({
    pair: { chain, both, same, sameFiles, sameLayers, sameInfo, sameMounts, sameDiff },
  }) => {
    for (const [depth, name] of chain.entries()) {
      await both((node) => node.ctr('snapshots', 'view', 'view', name));
      await sameInfo('view');
      await sameMounts('views', 'view');
      const tree = await sameFiles('each layer of an image', 'view');
      if (depth >= 1) expect(tree).toContain('srv/opaque/new');
      await same('that nothing can be written', 'views', (node) =>
        node.withSnapshot('view', (at) => sh(`(touch ${at}/new || true) 2>&1 | sed s,${at},,`, '/')),
      );
      await both((node) => node.ctr('snapshots', 'rm', 'view'));
    }
    await both((node) => node.ctr('snapshots', 'prepare', 'scratch', chain.at(-1) ?? ''));
    await sameMounts('active snapshots', 'scratch');
    await sameLayers('each layer of an image', 'scratch');
    for (const name of chain.slice(1)) await sameDiff('each layer of an image', name);
  });

  test('what a container writes, deletes and renames is as on overlayfs', async ({
    pair: { image, same, sameFiles, sameLayers, sameDiff, sameOverview },
  }) => {
    const said = await same('what a container reads and lists', 'on an image', (node) =>
      node.runContainer('one', image, changes),
    );
    expect(said).toContain('uid=0(root) gid=0(root)');
    expect(await sameFiles('what a container has written to', 'one')).toContain('srv/renamed');
    await sameLayers('what a container has written to', 'one');
    await sameOverview();
    await sameDiff('what a container has written to', 'one');
  });

  test('attributes, capabilities and access lists that the host sets are as on overlayfs', async ({
    pair: { both, sameFiles, sameLayers, sameDiff },
  }) => {
    await both((node) => node.withSnapshot('one', (tree) => sh(hostChanges, tree)));
    await sameFiles('what the host has written to', 'one');
    await sameLayers('what the host has written to', 'one');
    await sameDiff('what the host has written to', 'one');
  });

  test('a container on a committed snapshot is as on overlayfs', async ({
    pair: { both, same, sameFiles, sameLayers, sameInfo, sameDiff, sameOverview },
  }) => {
    await both((node) => node.ctr('snapshots', 'commit', 'first', 'one'));
    await sameInfo('first');
    await sameDiff('committed snapshots', 'first');
    await both((node) => node.ctr('snapshots', 'prepare', 'two', 'first'));
    await sameFiles('committed snapshots', 'two');
    await sameLayers('committed snapshots', 'two');
    const script = 'cat /srv/new; rm -r /many; echo two > /srv/two; mv /srv/two /srv/second; ls -A / /srv';
    await same('what a container reads and lists', 'on a committed snapshot', (node) =>
      node.withSnapshot('two', (tree) =>
        node.ctr('run', '--rm', ...node.containerOptions, '--rootfs', tree, 'two', '/bin/sh', '-ec', script),
      ),
    );
    await both((node) => node.ctr('snapshots', 'commit', 'second', 'two'));
    await both((node) => node.ctr('snapshots', 'prepare', 'three', 'second'));
    await sameFiles('committed snapshots', 'three');
    await sameLayers('committed snapshots', 'three');
    await sameDiff('committed snapshots', 'second', 'first');
    await sameOverview();
  });

  test('a snapshot without a parent is made, committed and built on as on overlayfs', async ({
    pair: { both, sameFiles, sameInfo, sameMounts, sameOverview },
  }) => {
    await both((node) => node.ctr('snapshots', 'prepare', 'empty'));
    await sameMounts('active snapshots', 'empty');
    await both((node) =>
      node.withSnapshot('empty', (tree) => sh('mkdir -p a/b; echo x > a/b/c; chmod 1777 .', tree)),
    );
    await both((node) => node.ctr('snapshots', 'commit', 'base', 'empty'));
    await both((node) => node.ctr('snapshots', 'view', 'only', 'base'));
    await both((node) => node.ctr('snapshots', 'view', 'nothing'));
    for (const key of ['base', 'only', 'nothing']) await sameInfo(key);
    for (const key of ['only', 'nothing']) {
      await sameMounts('views', key);
      await sameFiles('a snapshot without a parent', key);
    }
    await sameOverview();
    await both((node) => node.ctr('snapshots', 'rm', 'only', 'nothing', 'base'));
  });

  // The one difference in files. containerd makes each new upper directory 0755, whatever the directory below has.
  test('overlite keeps the mode of the root of a tree, which overlayfs does not', async ({
    pair: { chain, both },
  }) => {
    await both((node) => node.ctr('snapshots', 'prepare', 'mode', chain[0] ?? ''));
    await both((node) => node.withSnapshot('mode', (tree) => chmodSync(tree, 0o2711)));
    await both((node) => node.ctr('snapshots', 'commit', 'moded', 'mode'));
    await both((node) => node.ctr('snapshots', 'prepare', 'above', 'moded'));
    const modes = await both((node) => node.withSnapshot('above', (tree) => sh('stat -c %a .', tree)));
    expect(modes).toEqual(['2711\n', '755\n']);
    await both((node) => node.ctr('snapshots', 'rm', 'above', 'moded'));
  });

  test('labels are set, changed and taken away as on overlayfs', async ({ pair: { same, sameInfo } }) => {
    for (const labels of [['of=x', 'team=a b'], ['of=y'], ['of=']]) {
      await same('what `ctr` prints', '`snapshots label`', async (node) =>
        (await node.ctr('snapshots', 'label', 'first', ...labels))
          .trim()
          .split(',')
          .map((label) => label.replace(/gc\.root=.*/, 'gc.root=a time'))
          .toSorted(),
      );
      await sameInfo('first');
    }
  });

  test.for([
    ['prepare three second', 'already exists'],
    ['prepare new nowhere', 'not found'],
    ['prepare new three', 'invalid argument'],
    ['view first second', 'already exists'],
    ['commit first three', 'already exists'],
    ['commit new nowhere', 'not found'],
    ['commit new first', 'failed precondition'],
    ['mounts /mnt first', 'failed precondition'],
    ['mounts /mnt nowhere', 'not found'],
    ['info nowhere', 'not found'],
    ['usage nowhere', 'not found'],
    ['rm first', 'failed precondition'],
    ['rm nowhere', 'not found'],
    ['label nowhere a=b', 'not found'],
  ] as const)('`ctr snapshots %s` fails with "%s", as on overlayfs', async ([command, kind], { pair }) => {
    const said = await pair.same(
      'the kind of error',
      'prepare, view, commit, mounts, info, usage, rm and label',
      (node) => refusal(node, ...command.split(' ')),
    );
    expect(said).toBe(kind);
  });

  test('a container in a user namespace has the owners mapped as on overlayfs', async ({
    pair: { image, both, same, sameFiles, sameOverview },
  }) => {
    const maps = ['--uidmap', '0:100000:65536', '--gidmap', '0:200000:65536'];
    const script = 'id; stat -c "%n %u:%g %a" /* /deep/* /odd/*; echo x > /srv/mapped';
    await same('what a container reads and lists', 'in a user namespace', (node) =>
      node.ctr('run', ...node.containerOptions, ...maps, image, 'mapped', '/bin/sh', '-ec', script),
    );
    await sameFiles('a container in a user namespace', 'mapped');
    await sameOverview();
    await both((node) => node.ctr('containers', 'rm', 'mapped'));
  });

  test('an image that one snapshotter has is unpacked for the other when a container needs it', async ({
    pair: { ours, image, chain, sameOverview },
  }) => {
    const list = (): Promise<string> => ours.ctr('snapshots', '--snapshotter', 'overlayfs', 'list');
    expect(await list()).not.toContain('sha256');
    const options = [...ours.containerOptions, '--rm', '--snapshotter', 'overlayfs'];
    const said = await ours.ctr('run', ...options, image, 'back', '/bin/sh', '-c', 'ls /srv/opaque');
    expect(said).toBe('new\nsub\n');
    for (const name of chain) expect(await list()).toContain(name);
    await sameOverview();
  });

  test('a container goes on while containerd and overlite are killed, and its snapshot can be committed', async ({
    pair: { image, both, same, sameFiles, sameOverview },
  }) => {
    const forever = 'echo started > /srv/started; while true; do sleep 1; done';
    const options = ['--detach', '--null-io', '--snapshotter-label', 'containerd.io/gc.root=kept'];
    await both((node) =>
      node.ctr('run', ...options, ...node.containerOptions, image, 'long', '/bin/sh', '-ec', forever),
    );
    await both((node) =>
      waitFor('the start of the container', () =>
        node.ctr('tasks', 'ls').then((list) => /long.*RUNNING/.test(list)),
      ),
    );
    await both((node) => node.stopServer('SIGKILL'));
    await both((node) => node.stopContainerd('SIGKILL'));
    await both((node) => node.start());
    const look = ['--exec-id', 'look', 'long', '/bin/sh', '-ec', 'cat /srv/started; rm /srv/b; ls -A / /srv'];
    await same('what a container reads and lists', 'that has outlived both services', (node) =>
      node.ctr('tasks', 'exec', '--fifo-dir', join(node.directory, 'fifo'), ...look),
    );
    await both((node) => node.ctr('tasks', 'kill', '--signal', 'SIGKILL', 'long'));
    await both((node) =>
      waitFor('the end of the container', () =>
        node.ctr('tasks', 'ls').then((list) => /long.*STOPPED/.test(list)),
      ),
    );
    await both((node) => node.ctr('tasks', 'rm', '--force', 'long').catch(() => ''));
    await sameFiles('a container that outlived both services', 'long');
    await both((node) => node.ctr('snapshots', 'commit', 'outlived', 'long'));
    await both((node) => node.ctr('containers', 'rm', '--keep-snapshot', 'long'));
    await sameOverview();
  });

  test('an image can be unpacked after overlite was killed in the middle of that', async ({ pair }) => {
    const { ours, largeArchive } = pair;
    const { outcome } = await beginUnpack(ours, largeArchive);
    await ours.stopServer('SIGKILL');
    expect(await outcome).toBe('failed');
    await ours.start();
    await sameLarge(pair);
  });

  test('an image can be unpacked after containerd was killed in the middle of that', async ({ pair }) => {
    const { large, largeArchive, both, sameOverview } = pair;
    await both((node) => node.ctr('images', 'rm', '--sync', large));
    await sameOverview();
    await both(async (node) => {
      const { outcome } = await beginUnpack(node, largeArchive);
      await node.stopContainerd('SIGKILL');
      expect(await outcome).toBe('failed');
      await node.start();
    });
    await sameLarge(pair);
  });

  test('all snapshots are there after containerd and overlite are stopped and started', async ({
    pair: { ours, both, sameFiles, sameLayers, sameOverview },
  }) => {
    const before = await sameOverview();
    await both((node) => node.stopContainerd('SIGTERM'));
    expect(await ours.stopServer('SIGTERM')).toBe(0);
    await both((node) => node.start());
    expect(await sameOverview()).toBe(before);
    await sameFiles('committed snapshots', 'three');
    await sameLayers('committed snapshots', 'three');
  });

  test('nothing is left on disk when all images and snapshots are removed', async ({
    pair: { ours, image, large, both, sameOverview },
  }) => {
    await both((node) => node.ctr('images', 'rm', '--sync', image, large));
    await sameOverview();
    const keys = ['scratch', 'three', 'second', 'first', 'outlived'];
    await both((node) => node.ctr('snapshots', 'rm', ...keys));
    await both((node) => node.collect());
    expect(await sameOverview()).not.toContain('sha256');
    await both((node) =>
      waitFor('the deletion of all directories', () => readdirSync(node.layers).length === 0),
    );
    expect(await ours.overlite('check')).toMatchObject({ status: 'clean', findings: [] });
    expect(await ours.overlite('list')).toEqual([]);
  });

  test('docs/containerd.md lists what was compared', ({ pair: { compared } }) => {
    const text = readFileSync(join(import.meta.dirname, '../../docs/containerd.md'), 'utf8');
    const rows = [...text.matchAll(/^\| (.*?) +\| (.*?) +\|$/gm)].map(([, what, of]) => [what, of]);
    for (const [what, of] of compared) expect(rows).toContainEqual([what, [...of].join('; ')]);
  });
});

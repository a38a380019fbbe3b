import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ContainerdNode, nodeCommands, until } from '../support/containerd.ts';
import { makeLargeImage, makeTestImage } from '../support/containerd-image.ts';
import { isRoot } from '../support/needs.ts';
import { describeTree, missing, sh, treeCommands } from '../support/tree.ts';

const lacking = [...(isRoot ? [] : ['root']), ...missing(...nodeCommands, ...treeCommands)];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

const image = 'test.local/layers:1';
const large = 'test.local/large:1';

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

// The tests go on from one another, as an operator would: later ones have what earlier ones have left.
describe.skipIf(lacking.length > 0)(`on overlite, containerd is as on its own overlayfs${needs}`, () => {
  const nodes: ContainerdNode[] = [];
  /** What was compared, and of what: the table of docs/containerd.md. */
  const compared = new Map<string, Set<string>>();
  const started = Math.floor(Date.now() / 1000);
  let files: string;
  let chain: readonly string[];
  let largeTop: string;
  let ours: ContainerdNode;

  beforeAll(async () => {
    files = mkdtempSync(join(tmpdir(), 'overlite-image-'));
    const built = makeTestImage(image);
    ({ chain } = built);
    writeFileSync(join(files, 'image.tar'), built.archive);
    const builtLarge = makeLargeImage(large);
    largeTop = builtLarge.chain.at(-1) ?? '';
    writeFileSync(join(files, 'large.tar'), builtLarge.archive);
    ours = new ContainerdNode('overlite');
    nodes.push(ours, new ContainerdNode('overlayfs'));
    await both((node) => node.start());
  });
  afterEach(({ task }) => {
    if (task.result?.state === 'fail') for (const node of nodes) console.error(node.snapshotter, node.log());
  });
  afterAll(async () => {
    await both((node) => node.remove());
    rmSync(files, { recursive: true, force: true });
  });

  const both = <T>(act: (node: ContainerdNode) => Promise<T>): Promise<T[]> => Promise.all(nodes.map(act));

  /** Sees that something is the same on both nodes, and gives it. */
  async function same<T>(what: string, of: string, look: (node: ContainerdNode) => Promise<T>): Promise<T> {
    compared.set(what, (compared.get(what) ?? new Set()).add(of));
    const [mine, own] = await both(look);
    expect(mine, `${what}: ${of}`).toEqual(own);
    if (mine === undefined) throw new TypeError(`nothing was compared: ${what}`);
    return mine;
  }

  /** All there is to know of a tree. What was written since the start has no time that could be the same. */
  const describeFiles = (tree: string): string =>
    describeTree(tree).replaceAll(/\b(\d{10})\.\d{10}\b/g, (time, seconds) =>
      Number(seconds) >= started && Number(seconds) <= Date.now() / 1000 + 1 ? 'now' : time,
    );

  /**
   * All there is to know of the directory of a layer. What overlayfs notes about inodes and filesystems cannot be
   * the same. Whiteouts are links of one file of the work directory, which goes at another time.
   */
  function describeLayer(directory: string): string {
    const text = describeFiles(directory).replaceAll(/^(trusted\.overlay\.(?:origin|uuid))=.*$/gm, '$1');
    const whiteouts = new Set([...text.matchAll(/^(.*)\0c 0 0:0 0 /gm)].map(([, path]) => path));
    const groups = new Map<string, number>();
    const isLink = /^(\d+) (.*)$/;
    return text
      .replaceAll(/(\0c 0 0:0 0 \S+ {2}links) \d+$/gm, '$1')
      .split('\n')
      .filter((line) => !whiteouts.has(isLink.exec(line)?.[2]))
      .map((line) =>
        line.replace(isLink, (_, group: string, path: string) => {
          if (!groups.has(group)) groups.set(group, groups.size);
          return `link ${groups.get(group)} ${path}`;
        }),
      )
      .join('\n');
  }

  const sameFiles = (of: string, key: string): Promise<string> =>
    same('every file of the mounted tree', of, (node) => node.withSnapshot(key, describeFiles));

  const sameLayers = (of: string, key: string): Promise<string[]> =>
    same("every file of each layer's own directory", of, async (node) =>
      (await node.layersOf(key)).map(describeLayer),
    );

  /** What containerd tells of a snapshot, but for the times, of which is told whether they can be. */
  async function info(node: ContainerdNode, key: string): Promise<object> {
    const told = JSON.parse(await node.ctr('snapshots', 'info', key)) as {
      Created: string;
      Updated: string;
      Labels?: Record<string, string>;
    };
    const [created, updated] = [Date.parse(told.Created), Date.parse(told.Updated)];
    const can = started * 1000 <= created && created <= updated && updated <= Date.now();
    const labels = { ...told.Labels };
    if (/^\d{4}-/.test(labels['containerd.io/gc.root'] ?? '')) labels['containerd.io/gc.root'] = 'a time';
    return { ...told, Labels: labels, Created: can, Updated: can };
  }

  const sameInfo = (key: string): Promise<object> =>
    same('`ctr snapshots info`: kind, name, parent, labels', 'snapshots of each kind', (node) =>
      info(node, key),
    );

  async function sameOverview(): Promise<string> {
    const of = 'all snapshots, after each step';
    await same('`ctr snapshots list`', of, (node) => node.ctr('snapshots', 'list'));
    await same('`ctr snapshots usage`', of, (node) => node.ctr('snapshots', 'usage'));
    return same('`ctr snapshots tree`', of, (node) => node.ctr('snapshots', 'tree'));
  }

  /** The mount that `ctr` prints, the options in order, without what is not the same on two nodes. */
  async function mounts(node: ContainerdNode, key: string): Promise<string[]> {
    const command = (await node.ctr('snapshots', 'mounts', '/mnt', key)).trim();
    const [before = '', options = ''] = command.replaceAll(`${node.layers}/`, '').split(' -o ');
    return [before, ...options.split(',').toSorted()];
  }

  /** What `ctr diff` says that a snapshot has changed, unpacked by tar. */
  async function diff(node: ContainerdNode, ...keys: string[]): Promise<string> {
    const type = 'application/vnd.oci.image.layer.v1.tar';
    const archive = await node.ctr('snapshots', 'diff', '--media-type', type, ...keys);
    const tree = mkdtempSync(join(files, 'diff-'));
    const options = ['--xattrs', '--xattrs-include=*', '--same-owner', '-xpf', '-'];
    execFileSync('tar', options, { cwd: tree, input: Buffer.from(archive, 'latin1') });
    return describeFiles(tree);
  }

  const sameDiff = (of: string, ...keys: string[]): Promise<string> =>
    same('`ctr snapshots diff`, unpacked', of, (node) => diff(node, ...keys));

  /** The kind of error with which `ctr` refuses: the words before it are the snapshotter's own. */
  const refusal = (node: ContainerdNode, ...args: string[]): Promise<string> =>
    node.ctr('snapshots', ...args).then(
      (out) => `not refused: ${out}`,
      (error: unknown) =>
        /^ctr: .*: ([^:]+)\n$/.exec(String(Reflect.get(Object(error), 'stderr')))?.[1] ?? String(error),
    );

  test('an image is imported and unpacked', async () => {
    await same('what `ctr` prints', '`images import`', (node) =>
      node.ctr('images', 'import', join(files, 'image.tar')),
    );
    await same('what `ctr` prints', '`images list`', (node) => node.ctr('images', 'list'));
    await same('what `ctr` prints', '`images check`', (node) => node.ctr('images', 'check'));
    const tree = await sameOverview();
    expect(tree.match(/sha256:\w+/g)).toEqual(chain);
    expect(await ours.overlite('list')).toHaveLength(chain.length);
    for (const name of chain) await sameInfo(name);
  });

  test('every layer can be viewed, and cannot be written to', async () => {
    for (const [depth, name] of chain.entries()) {
      await both((node) => node.ctr('snapshots', 'view', 'view', name));
      await sameInfo('view');
      await same('`ctr snapshots mounts`', 'views', (node) => mounts(node, 'view'));
      const tree = await sameFiles('each layer of an image', 'view');
      if (depth >= 1) expect(tree).toContain('srv/opaque/new');
      await same('that nothing can be written', 'views', (node) =>
        node.withSnapshot('view', (at) => sh(`(touch ${at}/new || true) 2>&1 | sed s,${at},,`, '/')),
      );
      await both((node) => node.ctr('snapshots', 'rm', 'view'));
    }
    await both((node) => node.ctr('snapshots', 'prepare', 'scratch', chain.at(-1) ?? ''));
    await same('`ctr snapshots mounts`', 'active snapshots', (node) => mounts(node, 'scratch'));
    await sameLayers('each layer of an image', 'scratch');
    for (const name of chain.slice(1)) await sameDiff('each layer of an image', name);
  });

  test('a container writes, deletes and renames', async () => {
    const said = await same('what a container reads and lists', 'on an image', (node) =>
      node.runContainer('one', image, changes),
    );
    expect(said).toContain('uid=0(root) gid=0(root)');
    expect(await sameFiles('what a container has written to', 'one')).toContain('srv/renamed');
    await sameLayers('what a container has written to', 'one');
    await sameOverview();
    await sameDiff('what a container has written to', 'one');
  });

  test('what is mounted on the host is written to with attributes, capabilities and access lists', async () => {
    await both((node) => node.withSnapshot('one', (tree) => sh(hostChanges, tree)));
    await sameFiles('what the host has written to', 'one');
    await sameLayers('what the host has written to', 'one');
    await sameDiff('what the host has written to', 'one');
  });

  test('it is committed, and the next container is on it', async () => {
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

  test('a snapshot without a parent is made, committed and built on', async () => {
    await both((node) => node.ctr('snapshots', 'prepare', 'empty'));
    await same('`ctr snapshots mounts`', 'active snapshots', (node) => mounts(node, 'empty'));
    await both((node) =>
      node.withSnapshot('empty', (tree) => sh('mkdir -p a/b; echo x > a/b/c; chmod 1777 .', tree)),
    );
    await both((node) => node.ctr('snapshots', 'commit', 'base', 'empty'));
    await both((node) => node.ctr('snapshots', 'view', 'only', 'base'));
    await both((node) => node.ctr('snapshots', 'view', 'nothing'));
    for (const key of ['base', 'only', 'nothing']) await sameInfo(key);
    for (const key of ['only', 'nothing']) {
      await same('`ctr snapshots mounts`', 'views', (node) => mounts(node, key));
      await sameFiles('a snapshot without a parent', key);
    }
    await sameOverview();
    await both((node) => node.ctr('snapshots', 'rm', 'only', 'nothing', 'base'));
  });

  // The one difference in files. containerd makes each new upper directory 0755, whatever the directory below has.
  test('the mode of the root of a tree is kept, which it is not on the other', async () => {
    await both((node) => node.ctr('snapshots', 'prepare', 'mode', chain[0] ?? ''));
    await both((node) => node.withSnapshot('mode', (tree) => chmodSync(tree, 0o2711)));
    await both((node) => node.ctr('snapshots', 'commit', 'moded', 'mode'));
    await both((node) => node.ctr('snapshots', 'prepare', 'above', 'moded'));
    const modes = await both((node) => node.withSnapshot('above', (tree) => sh('stat -c %a .', tree)));
    expect(modes).toEqual(['2711\n', '755\n']);
    await both((node) => node.ctr('snapshots', 'rm', 'above', 'moded'));
  });

  test('labels are set, changed and taken away', async () => {
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

  test.each([
    ['already exists', 'prepare', 'three', 'second'],
    ['not found', 'prepare', 'new', 'nowhere'],
    ['invalid argument', 'prepare', 'new', 'three'],
    ['already exists', 'view', 'first', 'second'],
    ['already exists', 'commit', 'first', 'three'],
    ['not found', 'commit', 'new', 'nowhere'],
    ['failed precondition', 'commit', 'new', 'first'],
    ['failed precondition', 'mounts', '/mnt', 'first'],
    ['not found', 'mounts', '/mnt', 'nowhere'],
    ['not found', 'info', 'nowhere'],
    ['not found', 'usage', 'nowhere'],
    ['failed precondition', 'rm', 'first'],
    ['not found', 'rm', 'nowhere'],
    ['not found', 'label', 'nowhere', 'a=b'],
  ])('%s: ctr snapshots %s %s', async (kind, ...args) => {
    const said = await same(
      'the kind of error',
      'prepare, view, commit, mounts, info, usage, rm and label',
      (node) => refusal(node, ...args),
    );
    expect(said).toBe(kind);
  });

  test('a container in a user namespace has the image with the owners mapped', async () => {
    const maps = ['--uidmap', '0:100000:65536', '--gidmap', '0:200000:65536'];
    const script = 'id; stat -c "%n %u:%g %a" /* /deep/* /odd/*; echo x > /srv/mapped';
    await same('what a container reads and lists', 'in a user namespace', (node) =>
      node.ctr('run', ...node.containerOptions, ...maps, image, 'mapped', '/bin/sh', '-ec', script),
    );
    await sameFiles('a container in a user namespace', 'mapped');
    await sameOverview();
    await both((node) => node.ctr('containers', 'rm', 'mapped'));
  });

  test('an image that one snapshotter has is unpacked for the other when a container needs it', async () => {
    const list = (): Promise<string> => ours.ctr('snapshots', '--snapshotter', 'overlayfs', 'list');
    expect(await list()).not.toContain('sha256');
    const options = [...ours.containerOptions, '--rm', '--snapshotter', 'overlayfs'];
    const said = await ours.ctr('run', ...options, image, 'back', '/bin/sh', '-c', 'ls /srv/opaque');
    expect(said).toBe('new\nsub\n');
    for (const name of chain) expect(await list()).toContain(name);
    await sameOverview();
  });

  test('a container goes on while containerd and overlite are killed, and can be gone on with', async () => {
    const forever = 'echo started > /srv/started; while true; do sleep 1; done';
    const options = ['--detach', '--null-io', '--snapshotter-label', 'containerd.io/gc.root=kept'];
    await both((node) =>
      node.ctr('run', ...options, ...node.containerOptions, image, 'long', '/bin/sh', '-ec', forever),
    );
    await both((node) =>
      until('it has started', () => node.ctr('tasks', 'ls').then((list) => /long.*RUNNING/.test(list))),
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
      until('it has ended', () => node.ctr('tasks', 'ls').then((list) => /long.*STOPPED/.test(list))),
    );
    await both((node) => node.ctr('tasks', 'rm', '--force', 'long').catch(() => ''));
    await sameFiles('a container that outlived both services', 'long');
    await both((node) => node.ctr('snapshots', 'commit', 'outlived', 'long'));
    await both((node) => node.ctr('containers', 'rm', '--keep-snapshot', 'long'));
    await sameOverview();
  });

  /** Begins to unpack the large image, and says when that is in the middle of its second layer. */
  async function beginUnpack(node: ContainerdNode): Promise<Promise<string>[]> {
    const before = new Set(readdirSync(node.layers));
    const unpacked = node.ctr('images', 'import', join(files, 'large.tar')).then(
      () => 'unpacked',
      () => 'failed',
    );
    await until('the second layer is being unpacked', () =>
      readdirSync(node.layers).some(
        (id) => !before.has(id) && existsSync(join(node.layers, id, 'fs/two/first')),
      ),
    );
    return [unpacked];
  }

  test('overlite is killed in the middle of an unpack, and goes on after a restart', async () => {
    const [unpacked] = await beginUnpack(ours);
    await ours.stopServer('SIGKILL');
    expect(await unpacked).toBe('failed');
    await ours.start();
    await sameLarge();
  });

  test('containerd is killed in the middle of an unpack, and goes on after a restart', async () => {
    await both((node) => node.ctr('images', 'rm', '--sync', large));
    await sameOverview();
    await both(async (node) => {
      const [unpacked] = await beginUnpack(node);
      await node.stopContainerd('SIGKILL');
      expect(await unpacked).toBe('failed');
      await node.start();
    });
    await sameLarge();
  });

  /** Unpacks the large image, after an attempt that failed. What that has left is collected. */
  async function sameLarge(): Promise<void> {
    await both((node) => node.ctr('images', 'import', join(files, 'large.tar')));
    await both((node) => node.collect());
    await sameOverview();
    await both((node) => node.ctr('snapshots', 'view', 'view', largeTop));
    await sameFiles('an image whose unpacking was interrupted', 'view');
    await both((node) => node.ctr('snapshots', 'rm', 'view'));
    expect(await ours.overlite('check')).toMatchObject({ status: 'clean' });
  }

  test('after an orderly restart of everything it is all there', async () => {
    const before = await sameOverview();
    await both((node) => node.stopContainerd('SIGTERM'));
    expect(await ours.stopServer('SIGTERM')).toBe(0);
    await both((node) => node.start());
    expect(await sameOverview()).toBe(before);
    await sameFiles('committed snapshots', 'three');
    await sameLayers('committed snapshots', 'three');
  });

  test('nothing is left when everything is removed', async () => {
    await both((node) => node.ctr('images', 'rm', '--sync', image, large));
    await sameOverview();
    const keys = ['scratch', 'three', 'second', 'first', 'outlived'];
    await both((node) => node.ctr('snapshots', 'rm', ...keys));
    await both((node) => node.collect());
    expect(await sameOverview()).not.toContain('sha256');
    await both((node) => until('no directories are left', () => readdirSync(node.layers).length === 0));
    expect(await ours.overlite('check')).toMatchObject({ status: 'clean', findings: [] });
    expect(await ours.overlite('list')).toEqual([]);
  });

  test('docs/containerd.md lists what was compared', () => {
    const text = readFileSync(join(import.meta.dirname, '../../docs/containerd.md'), 'utf8');
    const rows = [...text.matchAll(/^\| (.*?) +\| (.*?) +\|$/gm)].map(([, what, of]) => [what, of]);
    for (const [what, of] of compared) expect(rows).toContainEqual([what, [...of].join('; ')]);
  });
});

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { makeLargeImage, makeTestImage } from './containerd-image.ts';
import { ContainerdNode } from './containerd.ts';
import { describeTree } from './tree.ts';

/** Two containerds that do the same, one on overlite and one on its own overlayfs, and what they have in common. */
export class ContainerdPair {
  readonly ours = new ContainerdNode('overlite');
  readonly nodes = [this.ours, new ContainerdNode('overlayfs')] as const;
  /** The image of the tests, and its name. */
  readonly image = 'test.local/layers:1';
  readonly archive: string;
  /** The names of the snapshots of its layers, the lowest first. */
  readonly chain: readonly string[];
  /** An image whose second layer takes a while to unpack, and its name. */
  readonly large = 'test.local/large:1';
  readonly largeArchive: string;
  /** The snapshot of its highest layer. */
  readonly largeTop: string;
  /** What was compared, and of what: the table of docs/containerd.md. */
  readonly compared = new Map<string, Set<string>>();
  readonly #files = mkdtempSync(join(tmpdir(), 'overlite-image-'));
  readonly #started = Math.floor(Date.now() / 1000);

  constructor() {
    const image = makeTestImage(this.image);
    this.chain = image.chain;
    this.archive = join(this.#files, 'image.tar');
    writeFileSync(this.archive, image.archive);
    const large = makeLargeImage(this.large);
    this.largeTop = large.chain.at(-1) ?? '';
    this.largeArchive = join(this.#files, 'large.tar');
    writeFileSync(this.largeArchive, large.archive);
  }

  /** What both servers have said. */
  log(): string {
    return this.nodes.map((node) => `${node.snapshotter}: ${node.log()}`).join('\n');
  }

  async remove(): Promise<void> {
    await this.both((node) => node.remove());
    rmSync(this.#files, { recursive: true, force: true });
  }

  /** Does the same on both nodes. @returns the results, that of overlite first */
  readonly both = <T>(act: (node: ContainerdNode) => Promise<T>): Promise<T[]> =>
    Promise.all(this.nodes.map(act));

  /** Sees that something is the same on both nodes, and gives it. */
  readonly same = async <T>(
    what: string,
    of: string,
    look: (node: ContainerdNode) => Promise<T>,
  ): Promise<T> => {
    this.compared.set(what, (this.compared.get(what) ?? new Set()).add(of));
    const [mine, own] = await this.both(look);
    expect(mine, `${what}: ${of}`).toEqual(own);
    if (mine === undefined) throw new TypeError(`nothing was compared: ${what}`);
    return mine;
  };

  /** Sees that the mounted tree of a snapshot is the same, and gives its description. */
  readonly sameFiles = (of: string, key: string): Promise<string> =>
    this.same('every file of the mounted tree', of, (node) =>
      node.withSnapshot(key, (tree) => this.#describeFiles(tree)),
    );

  readonly sameLayers = (of: string, key: string): Promise<string[]> =>
    this.same("every file of each layer's own directory", of, async (node) =>
      (await node.layersOf(key)).map((directory) => this.#describeLayer(directory)),
    );

  readonly sameInfo = (key: string): Promise<object> =>
    this.same('`ctr snapshots info`: kind, name, parent, labels', 'snapshots of each kind', (node) =>
      this.#info(node, key),
    );

  readonly sameMounts = (of: string, key: string): Promise<string[]> =>
    this.same('`ctr snapshots mounts`', of, (node) => mounts(node, key));

  readonly sameDiff = (of: string, ...keys: string[]): Promise<string> =>
    this.same('`ctr snapshots diff`, unpacked', of, (node) => this.#diff(node, ...keys));

  /** Sees that the nodes have the same snapshots, and gives their tree. */
  readonly sameOverview = async (): Promise<string> => {
    const of = 'all snapshots, after each step';
    await this.same('`ctr snapshots list`', of, (node) => node.ctr('snapshots', 'list'));
    await this.same('`ctr snapshots usage`', of, (node) => node.ctr('snapshots', 'usage'));
    return this.same('`ctr snapshots tree`', of, (node) => node.ctr('snapshots', 'tree'));
  };

  /** All there is to know of a tree. What was written since the start has no time that could be the same. */
  #describeFiles(tree: string): string {
    return describeTree(tree).replaceAll(/\b(\d{10})\.\d{10}\b/g, (time, seconds) =>
      Number(seconds) >= this.#started && Number(seconds) <= Date.now() / 1000 + 1 ? 'now' : time,
    );
  }

  /**
   * All there is to know of the directory of a layer. What overlayfs notes about inodes and filesystems cannot be
   * the same. Whiteouts are links of one file of the work directory, which goes at another time.
   */
  #describeLayer(directory: string): string {
    const text = this.#describeFiles(directory).replaceAll(
      /^(trusted\.overlay\.(?:origin|uuid))=.*$/gm,
      '$1',
    );
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

  /** What containerd tells of a snapshot, but for the times, of which is told whether they can be. */
  async #info(node: ContainerdNode, key: string): Promise<object> {
    const told = JSON.parse(await node.ctr('snapshots', 'info', key)) as {
      Created: string;
      Updated: string;
      Labels?: Record<string, string>;
    };
    const [created, updated] = [Date.parse(told.Created), Date.parse(told.Updated)];
    const can = this.#started * 1000 <= created && created <= updated && updated <= Date.now();
    const labels = { ...told.Labels };
    if (/^\d{4}-/.test(labels['containerd.io/gc.root'] ?? '')) labels['containerd.io/gc.root'] = 'a time';
    return { ...told, Labels: labels, Created: can, Updated: can };
  }

  /** What `ctr diff` says that a snapshot has changed, unpacked by tar. */
  async #diff(node: ContainerdNode, ...keys: string[]): Promise<string> {
    const type = 'application/vnd.oci.image.layer.v1.tar';
    const archive = await node.ctr('snapshots', 'diff', '--media-type', type, ...keys);
    const tree = mkdtempSync(join(this.#files, 'diff-'));
    const options = ['--xattrs', '--xattrs-include=*', '--same-owner', '-xpf', '-'];
    execFileSync('tar', options, { cwd: tree, input: Buffer.from(archive, 'latin1') });
    return this.#describeFiles(tree);
  }
}

/** The mount that `ctr` prints, the options in order, without what is not the same on two nodes. */
async function mounts(node: ContainerdNode, key: string): Promise<string[]> {
  const command = (await node.ctr('snapshots', 'mounts', '/mnt', key)).trim();
  const [before = '', options = ''] = command.replaceAll(`${node.layers}/`, '').split(' -o ');
  return [before, ...options.split(',').toSorted()];
}

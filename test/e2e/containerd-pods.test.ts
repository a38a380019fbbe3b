import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Info, Usage } from '../../src/index.ts';
import { ContainerdNode, nodeCommands, until } from '../support/containerd.ts';
import { makeWaitingImage } from '../support/containerd-image.ts';
import { CriClient } from '../support/cri.ts';
import { isRoot } from '../support/needs.ts';
import { missing } from '../support/tree.ts';

const lacking = [...(isRoot ? [] : ['root']), ...missing(...nodeCommands)];
const needs = lacking.length === 0 ? '' : ` (needs ${lacking.join(', ')})`;

const image = 'test.local/waiting:1';

// The tests go on from one another.
describe.skipIf(lacking.length > 0)(`the kubelet's interface of a containerd on overlite${needs}`, () => {
  let node: ContainerdNode;
  let kubelet: CriClient;
  let pod: string;

  const config = (): object => ({
    metadata: { name: 'pod', uid: 'uid', namespace: 'default' },
    // There is no network to be set up.
    linux: { cgroupParent: `/${node.cgroup}`, securityContext: { namespaceOptions: { network: 'NODE' } } },
  });

  beforeAll(async () => {
    node = new ContainerdNode('overlite', { podImage: image });
    await node.start();
    kubelet = new CriClient(node.socket);
  });
  afterEach(({ task }) => {
    if (task.result?.state === 'fail') console.error(node.log());
  });
  afterAll(async () => {
    kubelet.close();
    await node.remove();
  });

  test('has an image that was unpacked before the node was switched over', async () => {
    const files = mkdtempSync(join(tmpdir(), 'overlite-image-'));
    writeFileSync(join(files, 'image.tar'), makeWaitingImage(image).archive);
    await node.ctr('images', 'import', '--snapshotter', 'overlayfs', join(files, 'image.tar'));
    rmSync(files, { recursive: true });
    await until('the image is there', async () => {
      const { images } = await kubelet.call('ListImages', {});
      return images.some(({ repoTags }) => repoTags.includes(image));
    });
    expect(await node.overlite('list')).toEqual([]);
  });

  test('unpacks it, and runs a pod with a container that writes', async () => {
    ({ podSandboxId: pod } = await kubelet.call('RunPodSandbox', { config: config() }));
    const { containerId } = await kubelet.call('CreateContainer', {
      podSandboxId: pod,
      sandboxConfig: config(),
      config: {
        metadata: { name: 'container' },
        image: { image },
        command: ['/bin/sh', '-ec', 'rm -r /many; dd if=/dev/zero of=/srv/written bs=1M count=3; exit 7'],
      },
    });
    await kubelet.call('StartContainer', { containerId });
    let exitCode = 0;
    await until('the container has ended', async () => {
      const { status } = await kubelet.call('ContainerStatus', { containerId });
      ({ exitCode } = status);
      return status.state === 'CONTAINER_EXITED';
    });
    expect(exitCode).toBe(7);
  });

  test('tells of the image filesystem where the store is, and how much it holds', async () => {
    const list = (await node.overlite('list')) as (Info & { usage: Usage | null })[];
    const keys = list.filter(({ kind }) => kind === 'active').map(({ name }) => name);
    const own = (await node.overlite('usage', ...keys)) as { own: Usage }[];
    const committed = list.map(({ usage }) => usage ?? { size: 0, inodes: 0 });
    const all = [...committed, ...own.map((usage) => usage.own)];
    const total = all.reduce((sum, { size }) => sum + size, 0);
    expect(total).toBeGreaterThan(6 << 20);
    await until('the statistics are those of now', async () => {
      const { imageFilesystems } = await kubelet.call('ImageFsInfo', {});
      return (
        imageFilesystems[0]?.fsId.mountpoint === node.store && imageFilesystems[0].usedBytes.value === total
      );
    });
  });

  test('removes the pod and the image, and nothing is left', async () => {
    await kubelet.call('StopPodSandbox', { podSandboxId: pod });
    await kubelet.call('RemovePodSandbox', { podSandboxId: pod });
    await kubelet.call('RemoveImage', { image: { image } });
    await node.collect();
    expect(await node.overlite('list')).toEqual([]);
    await until('no directories are left', () => readdirSync(node.layers).length === 0);
    expect(await node.overlite('check')).toMatchObject({ status: 'clean', findings: [] });
  });
});

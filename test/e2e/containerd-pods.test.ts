import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { outputFileSync } from 'fs-extra/esm';
import { describe, expect } from 'vitest';
import type { Info, Usage } from '../../src/index.ts';
import { ContainerdNode, nodeCommands } from '../support/containerd.ts';
import { makeWaitingImage } from '../support/containerd-image.ts';
import { CriClient } from '../support/cri.ts';
import { test as base } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { waitFor } from '../support/wait-for.ts';

const lacking = needs('root', ...nodeCommands);

const image = 'test.local/waiting:1';

const test = base.extend<{
  $file: {
    node: ContainerdNode;
    kubelet: CriClient;
    config: object;
    /** The id of a pod, which is made when a test first asks for it. */
    pod: string;
  };
}>({
  node: [
    // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names of what a fixture needs from its parameter.
    async ({}, use) => {
      const node = new ContainerdNode('overlite', { podImage: image });
      try {
        await node.start();
        await use(node);
      } finally {
        await node.remove();
      }
    },
    { scope: 'file' },
  ],
  kubelet: [
    async ({ node }, use) => {
      const kubelet = new CriClient(node.socket);
      await use(kubelet);
      kubelet.close();
    },
    { scope: 'file' },
  ],
  config: [
    async ({ node }, use) => {
      // There is no network to be set up.
      const securityContext = { namespaceOptions: { network: 'NODE' } };
      await use({
        metadata: { name: 'pod', uid: 'uid', namespace: 'default' },
        linux: { cgroupParent: `/${node.cgroup}`, securityContext },
      });
    },
    { scope: 'file' },
  ],
  pod: [
    async ({ kubelet, config }, use) => {
      await use((await kubelet.call('RunPodSandbox', { config })).podSandboxId);
    },
    { scope: 'file' },
  ],
});

// The tests go on from one another.
describe.skipIf(lacking)(`the kubelet's interface of a containerd on overlite${lacking}`, () => {
  test.afterEach(({ task, node }) => {
    if (task.result?.state === 'fail') console.error(node.log());
  });

  test('the kubelet sees an image that was unpacked before the node was switched to overlite', async ({
    place,
    node,
    kubelet,
  }) => {
    const archive = join(place, 'image.tar');
    outputFileSync(archive, makeWaitingImage(image).archive);
    await node.ctr('images', 'import', '--snapshotter', 'overlayfs', archive);
    await waitFor('the image', async () => {
      const { images } = await kubelet.call('ListImages', {});
      return images.some(({ repoTags }) => repoTags.includes(image));
    });
    expect(await node.overlite('list')).toEqual([]);
  });

  test('the kubelet unpacks an image onto overlite, and runs a container that writes', async ({
    kubelet,
    config,
    pod,
  }) => {
    const { containerId } = await kubelet.call('CreateContainer', {
      podSandboxId: pod,
      sandboxConfig: config,
      config: {
        metadata: { name: 'container' },
        image: { image },
        command: ['/bin/sh', '-ec', 'rm -r /many; dd if=/dev/zero of=/srv/written bs=1M count=3; exit 7'],
      },
    });
    await kubelet.call('StartContainer', { containerId });
    const { exitCode } = await waitFor('the end of the container', async () => {
      const { status } = await kubelet.call('ContainerStatus', { containerId });
      return status.state === 'CONTAINER_EXITED' ? status : undefined;
    });
    expect(exitCode).toBe(7);
  });

  test('the kubelet is told where the store is, and how much it holds', async ({ node, kubelet }) => {
    const list = (await node.overlite('list')) as (Info & { usage: Usage | null })[];
    const keys = list.filter(({ kind }) => kind === 'active').map(({ name }) => name);
    const own = (await node.overlite('usage', ...keys)) as { own: Usage }[];
    const committed = list.map(({ usage }) => usage ?? { size: 0, inodes: 0 });
    const all = [...committed, ...own.map((usage) => usage.own)];
    const total = all.reduce((sum, { size }) => sum + size, 0);
    expect(total).toBeGreaterThan(6 << 20);
    await waitFor('statistics that are up to date', async () => {
      const { imageFilesystems } = await kubelet.call('ImageFsInfo', {});
      return (
        imageFilesystems[0]?.fsId.mountpoint === node.store && imageFilesystems[0].usedBytes.value === total
      );
    });
  });

  test('nothing is left on disk when the kubelet has removed the pod and the image', async ({
    node,
    kubelet,
    pod,
  }) => {
    await kubelet.call('StopPodSandbox', { podSandboxId: pod });
    await kubelet.call('RemovePodSandbox', { podSandboxId: pod });
    await kubelet.call('RemoveImage', { image: { image } });
    await node.collect();
    expect(await node.overlite('list')).toEqual([]);
    await waitFor('the deletion of all directories', () => readdirSync(node.layers).length === 0);
    expect(await node.overlite('check')).toMatchObject({ status: 'clean', findings: [] });
  });
});

import { release } from 'node:os';
import { describe, expect } from 'vitest';
import { mount, openMount } from '../../src/mount/index.ts';
import { MOUNT_METHODS, bestMethod } from '../../src/mount/method.ts';
import { test } from '../support/fixtures.ts';
import { prepareOnLayers } from '../support/layers.ts';
import { isMountPoint, methodsHere } from '../support/mount.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

/** The first version of Linux with each method. */
const FIRST = { descriptors: 613, strings: 608, 'mount(2)': 0, 'mount(8)': 0 } as const;

const [major = 0, minor = 0] = release().split('.').map(Number);
const version = major * 100 + minor;

describe.skipIf(lacking)(`the method to mount overlays${lacking}`, () => {
  // Before Linux 6.5, the kernel accepts every option, and refuses only when the overlay is created.
  test('bestMethod() is the best that this version of Linux has', () => {
    expect(bestMethod()).toBe(MOUNT_METHODS.find((method) => version >= FIRST[method]));
    expect(methodsHere).toEqual(MOUNT_METHODS.filter((method) => version >= FIRST[method]));
  });

  test('mount() and openMount() by a method that this kernel lacks are UNIMPLEMENTED, with the version it takes', async ({
    driver,
    target,
  }) => {
    const mounts = await prepareOnLayers(driver, 1);
    for (const by of MOUNT_METHODS.filter((method) => version < FIRST[method])) {
      const error = {
        code: 'UNIMPLEMENTED',
        message: `this kernel cannot mount overlays by ${by}`,
        hint: `it takes Linux ${by === 'descriptors' ? '6.13' : '6.8'}`,
      };
      await expect(mount(mounts, target, { by })).rejects.toMatchObject(error);
      await expect(openMount(mounts, { by })).rejects.toMatchObject(error);
    }
    expect(isMountPoint(target)).toBe(false);
  });
});

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { bindMounts, changeRoot, inNewMountNamespace } from '../../src/linux/namespace.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';
import { sh } from '../support/tree.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`a mount namespace for a function${lacking}`, () => {
  test('inNewMountNamespace() hides what its function mounts from everybody else', ({ place, target }) => {
    writeFileSync(join(place, 'file'), '');
    const namespace = (): string => readlinkSync('/proc/thread-self/ns/mnt');
    const before = namespace();
    const seen = inNewMountNamespace(() => {
      bindMounts(place, target);
      return [namespace() === before, execFileSync('ls', [target], { encoding: 'utf8' })];
    });
    expect(seen).toEqual([false, 'file\ntarget\n']);
    expect(namespace()).toBe(before);
    expect(readdirSync(target)).toEqual([]);
  });

  test('inNewMountNamespace() restores root and working directory after an error too', ({ place }) => {
    mkdirSync(join(place, 'new-root'));
    writeFileSync(join(place, 'new-root/only-file'), '');
    const descriptors = readdirSync('/proc/self/fd');
    const directory = process.cwd();
    const body = (): never => {
      changeRoot(join(place, 'new-root'));
      expect(readdirSync('/')).toEqual(['only-file']);
      throw new Error('enough');
    };
    expect(() => inNewMountNamespace(body)).toThrow('enough');
    expect(existsSync('/only-file')).toBe(false);
    expect(sh('pwd -P', '.').trim()).toBe(directory);
    expect(readdirSync('/proc/self/fd')).toEqual(descriptors);
  });

  test('bindMounts() takes along what is mounted below the source, and fails for a missing target', ({
    place,
    target,
  }) => {
    sh('mkdir -p source/inner', place);
    inNewMountNamespace(() => {
      sh('mount -t tmpfs none source/inner; touch source/inner/file', place);
      bindMounts(join(place, 'source'), target);
      expect(readdirSync(join(target, 'inner'))).toEqual(['file']);
    });
    expect(readdirSync(join(place, 'source/inner'))).toEqual([]);
    expect(() => inNewMountNamespace(() => bindMounts(place, join(place, 'missing')))).toThrow(
      /ENOENT.*missing/,
    );
  });
});

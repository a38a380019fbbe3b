import { closeSync, constants, openSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import {
  errnoOf,
  ignoreGone,
  ignoreMissing,
  isGone,
  isSystemError,
  unlessGone,
} from '../../src/linux/errno.ts';
import { test as base } from '../support/fixtures.ts';
import { sh } from '../support/tree.ts';

const test = base.extend<{
  /** The errors of opening what is not a regular file any more, by the name of their errno. */
  errors: ReadonlyMap<string, unknown>;
}>({
  errors: async ({ place }, use) => {
    writeFileSync(join(place, 'file'), '');
    symlinkSync('file', join(place, 'link'));
    sh('mkfifo fifo', place);
    const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;
    const attempts: [string, string, number][] = [
      ['ENOENT', 'missing', O_RDONLY],
      ['ENOTDIR', 'file/below', O_RDONLY],
      ['ELOOP', 'link', O_RDONLY | O_NOFOLLOW],
      ['ENXIO', 'fifo', O_WRONLY | O_NONBLOCK],
      ['EISDIR', '.', O_WRONLY],
    ];
    await use(
      new Map(
        attempts.map(([errno, name, flags]) => [errno, failure(() => openSync(join(place, name), flags))]),
      ),
    );
  },
});

function failure(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

function thrower(error: unknown): () => never {
  return () => {
    throw error;
  };
}

test('errnoOf() names the errno of an error of node:fs, and nothing for what has no code', ({ errors }) => {
  for (const [errno, error] of errors) expect(errnoOf(error)).toBe(errno);
  for (const other of [new Error('ENOENT'), 'ENOENT', { code: 'ENOENT' }, undefined, null]) {
    expect(errnoOf(other)).toBe('');
  }
});

test('isSystemError() tells errors of the operating system from those of Node', ({ errors }) => {
  for (const error of errors.values()) expect(isSystemError(error)).toBe(true);
  const wrongArgument = failure(() => readdirSync('a\0b'));
  expect(errnoOf(wrongArgument)).toBe('ERR_INVALID_ARG_VALUE');
  expect(isSystemError(wrongArgument)).toBe(false);
});

describe('a file that is gone', () => {
  test('isGone() is true if a file is missing or was replaced, and only then', ({ errors }) => {
    const gone = [...errors].filter(([, error]) => isGone(error)).map(([errno]) => errno);
    expect(gone).toEqual(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO']);
  });

  test('unlessGone() returns what it is given to read, or undefined if that is gone', ({ place, errors }) => {
    const fd = unlessGone(() => openSync(place, 'r'));
    expect(fd).toBeTypeOf('number');
    closeSync(fd ?? -1);
    expect(unlessGone(() => openSync(join(place, 'missing'), 'r'))).toBeUndefined();
    expect(() => unlessGone(thrower(errors.get('EISDIR')))).toThrow(/EISDIR/);
  });

  test('ignoreGone() and ignoreMissing() throw every other error', ({ errors }) => {
    for (const [errno, error] of errors) {
      const isThrownBy = (ignore: (error: unknown) => undefined): boolean => {
        try {
          return ignore(error) !== undefined;
        } catch (thrown) {
          return thrown === error;
        }
      };
      expect({ errno, thrown: isThrownBy(ignoreGone) }).toEqual({ errno, thrown: errno === 'EISDIR' });
      expect({ errno, thrown: isThrownBy(ignoreMissing) }).toEqual({ errno, thrown: errno !== 'ENOENT' });
    }
  });
});

import { execFileSync } from 'node:child_process';
import { closeSync, constants, lstatSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { checkPlain, describeType, hasDirectory, openPlain, statPlain } from '../../src/linux/plain-file.ts';
import { test } from '../support/fixtures.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`plain files${lacking}`, () => {
  test('only a regular file, or none, passes for one', async ({ place }) => {
    const at = (name: string): string => join(place, name);
    writeFileSync(at('file'), 'text');
    mkdirSync(at('directory'));
    symlinkSync('file', at('link'));
    execFileSync('mkfifo', [at('fifo')]);
    execFileSync('mknod', [at('device'), 'c', '1', '3']);
    const server = createServer();
    await new Promise<void>((resolve) => void server.listen(at('socket'), resolve));
    const others = {
      directory: 'a directory',
      link: 'a symbolic link',
      fifo: 'a fifo',
      device: 'a device',
      socket: 'a socket',
    };
    for (const [name, words] of Object.entries(others)) {
      expect(describeType(lstatSync(at(name)))).toBe(words);
      expect(statPlain(at(name))).toBeUndefined();
      for (const look of [checkPlain, (path: string) => openPlain(path, constants.O_RDONLY)]) {
        expect(() => look(at(name))).toThrow(
          expect.objectContaining({
            code: 'FAILED_PRECONDITION',
            message: expect.stringContaining(words) as string,
          }),
        );
      }
    }
    server.close();
    checkPlain(at('nothing'));
    checkPlain(at('file'));
    expect(statPlain(at('file'))?.size).toBe(4);
    closeSync(openPlain(at('file'), constants.O_RDONLY));
    expect(() => openPlain(at('nothing'), constants.O_RDONLY)).toThrow('ENOENT');
  });

  test('hasDirectory() tells a directory from nothing, and refuses anything else', ({ place }) => {
    mkdirSync(join(place, 'directory'));
    symlinkSync('directory', join(place, 'link'));
    expect(hasDirectory(join(place, 'directory'))).toBe(true);
    expect(hasDirectory(join(place, 'nothing'))).toBe(false);
    expect(() => hasDirectory(join(place, 'link'))).toThrow(
      expect.objectContaining({ code: 'FAILED_PRECONDITION' }),
    );
  });
});

import { closeSync, readSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { openRegular } from '../../src/linux/regular-file.ts';
import { test } from '../support/fixtures.ts';
import { sh } from '../support/tree.ts';

test('openRegular() opens a file to read, follows no symbolic link, and does not wait for the writer of a fifo', ({
  place,
}) => {
  writeFileSync(join(place, 'file'), 'data');
  symlinkSync('file', join(place, 'link'));
  sh('mkfifo fifo', place);
  const at = (name: string): Buffer => Buffer.from(join(place, name));
  const fd = openRegular(at('file'));
  expect(readSync(fd, Buffer.alloc(10))).toBe(4);
  closeSync(fd);
  expect(() => openRegular(at('link'))).toThrow(/ELOOP/);
  closeSync(openRegular(at('fifo')));
});

import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { isGone } from '../../src/linux/errno.ts';
import { linkTarget } from '../../src/linux/link-target.ts';
import { test } from '../support/fixtures.ts';

test('linkTarget() gives the target of a symbolic link, and says that one is gone which is a file now', ({
  place,
}) => {
  symlinkSync('nowhere', join(place, 'link'));
  writeFileSync(join(place, 'file'), '');
  expect(linkTarget(Buffer.from(join(place, 'link')))).toEqual(Buffer.from('nowhere'));
  expect(() => linkTarget(Buffer.from(join(place, 'file')))).toThrow(expect.toSatisfy(isGone));
});

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite mount, unmount and mounts${lacking}`, () => {
  test('`mount` mounts a snapshot, whose directory stays until it is unmounted', ({
    place,
    example,
    printed,
    json,
    overlite,
  }) => {
    const target = join(place, 'a target');
    mkdirSync(target);
    expect(printed('mounts', 'work', target)).toMatch(/^mount -t overlay overlay '.*a target' -o workdir=/);
    expect(printed('mount', 'work', target)).toBe(`work is mounted on "${target}"\n`);
    try {
      writeFileSync(join(target, 'written'), '');
      expect(overlite('remove', 'work').stdout).toContain('its directory stays until a cleanup: ');
      expect(json('cleanup')).toMatchObject({
        removed: 0,
        deferred: [{ path: example.at('snapshots', example.ids.work) }],
      });
    } finally {
      expect(json('unmount', target)).toEqual({ target });
    }
    expect(printed('cleanup')).toBe('1 removed, 0 still in use\n');
    expect(overlite('unmount', target)).toMatchObject({ status: 1 });
  });
});

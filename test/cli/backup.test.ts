import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../support/cli.ts';
import { needs } from '../support/needs.ts';

const lacking = needs('root');

describe.skipIf(lacking)(`overlite backup${lacking}`, () => {
  test('`backup` writes a new file, and refuses an existing one', ({ place, printed, json, overlite }) => {
    const directory = join(place, 'backups');
    mkdirSync(directory);
    const file = join(directory, 'backup.db');
    expect(printed('backup', file)).toBe(`${file} is written\n`);
    const { status, stderr } = overlite('backup', file);
    expect(status).toBe(1);
    expect(stderr).toContain('ALREADY_EXISTS');
    const other = join(directory, 'other.db');
    expect(json('backup', other)).toEqual({ file: other });
    expect(readdirSync(directory).toSorted()).toEqual(['backup.db', 'other.db']);
  });
});

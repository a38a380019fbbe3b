import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Description } from '../../src/check/description.ts';
import { DESCRIPTIONS } from '../../src/check/findings.ts';
import { problem } from '../../src/check/problem.ts';
import { FINDINGS } from '../../src/index.ts';

const src = join(import.meta.dirname, '../../src');

/** The modules of `src` that are loaded with one of them, without those that are only imported for their types. */
function loadedWith(file: string, loaded = new Set<string>()): Set<string> {
  if (loaded.has(file)) return loaded;
  loaded.add(file);
  const text = readFileSync(join(src, file), 'utf8');
  for (const [, path = ''] of text.matchAll(/^(?:import|export) (?!type )[^;]*? from '(\.[^']+)'/gms)) {
    loadedWith(normalize(join(dirname(file), path)), loaded);
  }
  return loaded;
}

describe('FINDINGS', () => {
  test('FINDINGS loads the descriptions of findings, and neither checks nor repairs nor the database', () => {
    const loaded = [...loadedWith('check/findings.ts')];
    expect(loaded).toContain('check/steps/mounts.findings.ts');
    expect(
      loaded.filter((file) => !/^check\/(findings|steps\/\w+\.findings)\.ts$|^quote\.ts$/.test(file)),
    ).toEqual([]);
  });

  test('FINDINGS names a repair only if it is done about every finding of the code', () => {
    for (const [code, { repair }] of Object.entries<Description>(DESCRIPTIONS)) {
      const always = repair !== undefined && repair.when === undefined && repair.unlisted !== true;
      expect(FINDINGS).toHaveProperty([code, 'step']);
      if (always) expect(FINDINGS).toHaveProperty([code, 'repair'], repair.sentence);
      else expect(FINDINGS).not.toHaveProperty([code, 'repair']);
    }
  });
});

describe('problem()', () => {
  test('problem() takes the severity from the facts if the description says so', () => {
    expect(problem('root-mode', { mode: 0o755, path: '/root' })).toMatchObject({
      severity: 'warning',
      message: 'others may look into the root: its mode is 0755',
    });
    expect(problem('root-mode', { mode: 0o777, path: '/root' }).severity).toBe('error');
  });

  test('problem() has a repair only if the facts allow it', () => {
    const missing = { snapshot: '"a"', id: 1, path: '/store/snapshots/1' };
    expect(problem('directory-missing', { ...missing, kind: 'active' }).repair).toEqual({
      sentence: 'make it anew, empty',
      phase: 'create',
    });
    expect(problem('directory-missing', { ...missing, kind: 'committed' }).repair).toBeUndefined();
    expect(problem('index-damaged', { lines: [], repairable: false }).repair).toBeUndefined();
  });

  test('problem() says of a schema object what its repair creates', () => {
    const difference = { type: 'view', name: 'snapshot_tree', problem: 'missing' } as const;
    expect(problem('schema-differs', { difference })).toMatchObject({
      severity: 'error',
      message: 'the view snapshot_tree is missing',
      repair: { sentence: 'make the view anew' },
    });
    const extra = { type: 'table', name: 'mine', problem: 'extra' } as const;
    expect(problem('schema-differs', { difference: extra })).toMatchObject({
      severity: 'error',
      repair: { sentence: 'keep the table in lost+found, and drop it' },
    });
  });
});

import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { test } from '../../support/fixtures.ts';
import { needs } from '../../support/needs.ts';

const lacking = needs('root', 'sqlite3');

describe.skipIf(lacking)(`checks of directories${lacking}`, () => {
  test('check says what is in place of a directory, and a repair sets it aside as it is', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    const work = at('snapshots', ids.work, 'work');
    rmSync(work, { recursive: true });
    execFileSync('mkfifo', [work]);
    const report = await examiner.check(root);
    expect(report.findings).toMatchObject([
      {
        code: 'not-a-directory',
        snapshot: 'work',
        id: ids.work,
        path: work,
        message: 'the work directory of "work" is neither a directory nor a file',
      },
    ]);
    const { repairs } = await examiner.check(root, { repair: true });
    expect(repairs).toMatchObject([
      { code: 'not-a-directory', outcome: 'done' },
      { code: 'work-missing', outcome: 'done' },
    ]);
    expect(lstatSync(repairs[0]?.detail ?? '').isFIFO()).toBe(true);
    expect((await examiner.check(root)).status).toBe('clean');
  });

  test('check quotes names so that no terminal obeys them, and gives their path', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    const name = 'notes\n\u001b[2J\u202e';
    writeFileSync(at('snapshots', ids.base, name), '');
    mkdirSync(at('snapshots', name));
    const { findings } = await examiner.check(root);
    expect(findings.map(({ code, path }) => [code, path])).toEqual([
      ['directory-unknown', at('snapshots', name)],
      ['entry-extra', at('snapshots', ids.base, name)],
    ]);
    for (const { message } of findings) expect(message).toContain(String.raw`"notes\n\u001b[2J\u202e"`);
  });

  test('a check that is limited to a snapshot finds nothing about other directories', async ({
    example,
    examiner,
  }) => {
    const { root, ids, at } = example;
    mkdirSync(at('snapshots', 'stray'));
    mkdirSync(at('snapshots', 4711));
    writeFileSync(at('snapshots', ids.scratch, 'notes'), '');
    writeFileSync(at('snapshots', ids.base, 'notes'), '');
    const codes = async (...only: string[]): Promise<string[]> =>
      (await examiner.check(root, { only: ['directories', ...only] })).findings.map(
        ({ code, id }) => `${code} ${id}`,
      );
    expect(await codes('work')).toEqual([`entry-extra ${ids.base}`]);
    expect(await codes('scratch')).toEqual([`entry-extra ${ids.scratch}`]);
    expect(await codes()).toHaveLength(4);
  });

  test('check takes an id with zeros in front, a sign or too many digits for no id', async ({
    example,
    examiner,
  }) => {
    const { root, at } = example;
    const names = ['007', '+8', '-9', '1e3', '99999999999999999', '0'];
    for (const name of names) mkdirSync(at('snapshots', name));
    const { findings, status } = await examiner.check(root);
    expect(status).toBe('clean');
    expect(findings.map(({ code, id, path }) => [code, id, path]).toSorted(byPath)).toEqual(
      names.map((name) => ['directory-unknown', null, join(root, 'snapshots', name)]).toSorted(byPath),
    );
  });
});

function byPath(a: readonly unknown[], b: readonly unknown[]): number {
  return String(a[2]) < String(b[2]) ? -1 : 1;
}

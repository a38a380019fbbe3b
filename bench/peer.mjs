// containerd's side: the program in peer/, which runs containerd's own code in-process.
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Builds the program from Debian's packages golang-go and golang-github-containerd-containerd-dev. @returns its path */
export function buildPeer(directory) {
  const program = join(directory, 'peer');
  const source = new URL('peer/main.go', import.meta.url).pathname;
  const env = { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode', CGO_ENABLED: '0' };
  try {
    execFileSync('go', ['build', '-o', program, source], { env, stdio: ['ignore', 'inherit', 'inherit'] });
  } catch (error) {
    throw new Error(
      'containerd cannot be built: apt-get install golang-go golang-github-containerd-containerd-dev',
      { cause: error },
    );
  }
  return program;
}

/**
 * Measures containerd's figures of those names on the filesystem of a directory.
 *
 * @returns the figures, and how large its database is with so many snapshots where it tells that
 */
export async function measurePeer(program, root, names, { quick }) {
  if (names.length === 0) return { figures: [], databases: [] };
  mkdirSync(root, { mode: 0o700 });
  const only = `^(${names.join('|')})$`;
  const budget = quick ? '250ms' : '1s';
  const { stdout } = await run(program, ['-keep', '-root', root, '-only', only, '-budget', budget], {
    maxBuffer: 1e7,
  });
  const lines = stdout
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  const figures = lines.map(({ name, n, median_ns, p99_ns, min_ns }) => ({
    name,
    median: median_ns / 1000,
    p99: p99_ns / 1000,
    min: min_ns / 1000,
    samples: n,
  }));
  const databases = lines
    .filter(({ db_bytes: bytes }) => bytes > 0)
    .map(({ existing, db_bytes: bytes }) => ({ existing, bytes }));
  return { figures, databases };
}

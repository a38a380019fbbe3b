import { fileURLToPath } from 'node:url';
import { build } from 'rolldown';

/** Where the programs are that are started so often that the time to load their modules counts: each in one file. */
const directory = new URL('../../node_modules/.cache/', import.meta.url);

/** A bundle lies elsewhere than the sources: its child processes run the built program too. */
const workerProgram = fileURLToPath(new URL('worker-program.ts', import.meta.url));

const programs = ['../crash/operate.mjs', 'examine.mjs'].map((path) => new URL(path, import.meta.url));

/** The bundled one of a program's name. */
export function bundled(name: string): string {
  return fileURLToPath(new URL(name, directory));
}

/** Bundles them, once for all test files. */
export async function setup(): Promise<void> {
  for (const program of programs) {
    const input = fileURLToPath(program);
    await build({
      input,
      resolve: { alias: { './worker-program.ts': workerProgram } },
      platform: 'node',
      external: ['better-sqlite3', 'koffi', 're2js'],
      transform: { target: 'node20' },
      output: { dir: fileURLToPath(directory), entryFileNames: '[name].mjs', codeSplitting: false },
    });
  }
}

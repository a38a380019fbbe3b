import { chmodSync, existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { outputFileSync } from 'fs-extra/esm';
import { type InputOptions, type OutputOptions, rolldown } from 'rolldown';
import { loadConfig } from 'rolldown/config';
import { bundleDirectory } from './bundled.ts';

/** A bundle lies elsewhere than the sources: its child processes run the built program too. */
const workerProgram = fileURLToPath(new URL('worker-program.ts', import.meta.url));

/** Programs that are started so often that the time to load their modules counts: each is bundled in one file. */
const programs = ['../crash/operate.mjs', 'examine.mjs'];

/** Builds what tests load beside the sources, so that none of them sees an old build, and says what is sampled. */
export async function setup(): Promise<void> {
  const { output, ...input } = (await loadConfig('rolldown.config.mjs')) as InputOptions & {
    output: OutputOptions;
  };
  await build(input, { ...output, dir: 'dist' });
  if ((statSync('dist/cli/main.js').mode & 0o777) !== 0o755) chmodSync('dist/cli/main.js', 0o755);
  for (const program of programs) {
    await build(
      {
        input: fileURLToPath(new URL(program, import.meta.url)),
        resolve: { alias: { './worker-program.ts': workerProgram } },
        platform: 'node',
        external: ['better-sqlite3', 'koffi', 're2js'],
        transform: { target: 'node20' },
      },
      { dir: bundleDirectory, entryFileNames: '[name].mjs', codeSplitting: false },
    );
  }
  console.log(`TEST_SEED=${process.env['TEST_SEED']} repeats what this run samples.`);
}

/** Writes only files that differ: another run of the tests may be reading them. */
async function build(input: InputOptions, output: OutputOptions & { dir: string }): Promise<void> {
  await using bundle = await rolldown(input);
  for (const file of (await bundle.generate(output)).output) {
    const path = join(output.dir, file.fileName);
    const content = file.type === 'chunk' ? file.code : file.source;
    if (!existsSync(path) || !readFileSync(path).equals(Buffer.from(content))) outputFileSync(path, content);
  }
}

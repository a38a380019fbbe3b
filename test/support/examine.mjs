// Checks stores one after the other in one process, as the process of a check does, whose start takes longer than most.
// Each message is `{ root, settings }`; it is answered with `{ report }` or `{ error }`.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { examine } from '../../src/check/check.task.ts';

async function answer(input) {
  const directory = mkdtempSync(join(tmpdir(), 'overlite-examine-'));
  const scratch = () => {
    const made = join(directory, 'scratch');
    mkdirSync(made, { recursive: true, mode: 0o700 });
    return made;
  };
  try {
    return { report: await examine(input, { emit() {}, scratch }) };
  } catch (error) {
    return { error: String(error?.stack) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

process.on('message', (input) => void answer(input).then((found) => process.send(found)));

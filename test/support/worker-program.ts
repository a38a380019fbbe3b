import { fileURLToPath } from 'node:url';

/** Tests load the sources, which cannot be forked: their child processes run the built program. */
export const workerProgram = fileURLToPath(new URL('../../dist/worker.js', import.meta.url));

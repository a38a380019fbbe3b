import { fileURLToPath } from 'node:url';

// Tests load the sources, which cannot be run as they are: child processes and threads run the built programs.

export const workerProgram = fileURLToPath(new URL('../../dist/worker.js', import.meta.url));
export const threadProgram = fileURLToPath(new URL('../../dist/thread.js', import.meta.url));

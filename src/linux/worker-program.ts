import { fileURLToPath } from 'node:url';

/** The path of the program that child processes run, which is beside the folder of this module. */
export const workerProgram = fileURLToPath(new URL('../worker.js', import.meta.url));

/** The path of the program of threads. */
export const threadProgram = fileURLToPath(new URL('../thread.js', import.meta.url));

import { fileURLToPath } from 'node:url';

/** The path of the program that child processes run; it stands beside the folder that this module is in. */
export const workerProgram = fileURLToPath(new URL('../worker.js', import.meta.url));

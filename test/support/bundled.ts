import { fileURLToPath } from 'node:url';

/** Where `global-setup.ts` puts the bundles of programs. */
export const bundleDirectory = fileURLToPath(new URL('../../node_modules/.cache/', import.meta.url));

/** The path of the bundle of a program, by the name of its file. */
export function bundled(name: string): string {
  return `${bundleDirectory}${name}`;
}

/** See read-tree.mjs. */
export function readTree(root: string): Record<string, string>;

// What is measured, what of containerd's it is compared with, and what is aimed at.

export const sizes = { full: [100, 10_000, 50_000, 100_000], quick: [100, 10_000] };

export const depthList = [1, 10, 100, 500];

/** The ending that containerd's figures have for so many snapshots. */
const suffix = (count) => (count >= 1000 ? `_${count / 1000}k` : `_${count}`);

const overlay = (figure) => (count) => `overlay/${figure}${suffix(count)}`;
/** On the largest stores containerd's removals would take minutes. */
const overlaySync = (figure) => (count) =>
  count < 100_000 ? `overlaysync/${figure}${suffix(count)}` : undefined;
const meta = (figure) => (count) => `meta/${figure}${suffix(count)}`;

/**
 * Operations on a store of some size. `target` is how much of containerd's time one may take, a number or one for each
 * size; `fullPeer` is what its figure at full durability is compared with; only what `grows` may take longer the more
 * there is.
 */
const onStores = [
  { operation: 'prepare', title: 'prepare', peer: overlay('prepare'), target: 0.5 },
  { operation: 'view', title: 'view', peer: overlay('view'), target: 0.4 },
  {
    operation: 'commit',
    title: 'commit of an empty layer',
    peer: overlay('commit'),
    fullPeer: overlay('commit_syncfs'),
    target: 0.8,
  },
  { operation: 'remove', title: 'remove, deferred deletion', peer: overlay('remove'), target: 0.8 },
  {
    operation: 'remove-and-delete',
    title: 'remove with deletion',
    peer: overlaySync('remove'),
    target: { 10_000: 0.05, 50_000: 0.01 },
    between: true,
  },
  {
    operation: 'cleanup',
    title: 'cleanup with nothing to do',
    peer: overlaySync('cleanup'),
    target: { 50_000: 0.001 },
    between: true,
  },
  { operation: 'mounts', title: 'mounts, depth 9', peer: overlay('mounts'), target: 1 },
  { operation: 'stat', title: 'stat', peer: overlay('stat'), target: 1.3 },
  { operation: 'list-name', title: 'list by name', peer: meta('walk_name'), target: { 100_000: 0.001 } },
  {
    operation: 'list-parent',
    title: 'list by parent',
    peer: meta('walk_parent'),
    target: { 100_000: 0.001 },
  },
  { operation: 'list-label', title: 'list by label', peer: meta('walk_ref'), target: { 100_000: 0.001 } },
  {
    operation: 'list-hundredth',
    title: 'list by label, a hundredth',
    peer: meta('walk_label'),
    target: {},
    grows: true,
  },
  {
    operation: 'list-all',
    title: 'list everything',
    peer: overlay('walk'),
    target: { 100_000: 1 },
    grows: true,
  },
  { operation: 'open', title: 'open' },
  { operation: 'parent', title: 'parent' },
];

/** Operations that do not depend on how many snapshots there are. */
const others = [
  {
    name: 'prepare@once64',
    title: 'one of 64 prepares at once',
    peer: 'overlay/prepare_c64',
    target: 0.2,
  },
  ...depthList.map((depth) => ({
    name: `mounts@depth${depth}`,
    title: `mounts at depth ${depth}`,
    peer: `overlay/mounts_d${depth}`,
    target: { 10: 1, 100: 0.5, 500: 0.6 }[depth],
  })),
  ...depthList.map((depth) => ({
    name: `prepare@depth${depth}`,
    title: `prepare at depth ${depth}`,
    peer: `overlay/prepare_d${depth}`,
    target: 0.5,
  })),
  {
    name: 'usage@files1000',
    title: 'usage of 1,000 files',
    peer: 'overlay/usage_1000files',
    target: 1,
  },
  {
    name: 'commit@files1000',
    title: 'commit of 1,000 files, on a base',
    peer: 'overlay/commit_1000files',
    fullPeer: 'overlay/commit_1000files_syncfs',
    target: 1,
  },
  {
    name: 'commit-base@files1000',
    title: 'commit of 1,000 files, a base',
    peer: 'overlay/commit_1000files',
    fullPeer: 'overlay/commit_1000files_syncfs',
    target: 1,
  },
];

const thousands = (count) => count.toLocaleString('en');

/** The size of store that only what is measured in `between` is measured on. */
const BETWEEN = 50_000;

/** The rows of the table: each with a name that is the same for all sides. */
export function rowsFor(counts) {
  const stores = onStores.flatMap(({ operation, title, peer, fullPeer, target, grows, between }) =>
    counts
      .filter((count) => between === true || count !== BETWEEN)
      .map((count) => ({
        name: `${operation}@${count}`,
        operation,
        count,
        title: `${title}, ${thousands(count)} existing`,
        peer: peer?.(count),
        fullPeer: (fullPeer ?? peer)?.(count),
        target: typeof target === 'object' ? target[count] : target,
        grows: grows === true,
      })),
  );
  return [...stores, ...others];
}

/** The operations whose growth is looked at, with their titles. */
export const growing = onStores;

// The data set that both sides are measured on: chains of ten, the top of each active, two labels a snapshot.

/** A digest as it is found in image stores. */
export const digest = (i) => `sha256:${i.toString(16).padStart(64, '0')}`;

/** The key or name of the snapshot of that number. */
export const key = (i) => `default/${i}/${digest(i)}`;

export const labels = (i) => ({ 'containerd.io/snapshot.ref': digest(i), l: String(i % 100) });

/** The number of some snapshot out of so many, another one at each call. */
export const some = (i, count) => (i * 7919) % count;

export const isActive = (i) => i % 10 === 9;

export const parentOf = (i) => (i % 10 === 0 ? null : key(i - 1));

import { closeSync, constants, fstatSync, ftruncateSync, readSync, statfsSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { quote } from '../quote.ts';
import { openPlain } from './plain-file.ts';
import { type Stretch, stretchesOf } from './stretches.ts';

const BLOCK_BYTES = 1 << 20;

/** How much of the free space a copy may take: others need some too. */
const MOST_OF_FREE = 0.9;

/**
 * Copies a regular file to a new one. Holes are neither read nor filled, and nothing is written unless all fits.
 *
 * @throws {SnapshotError} FAILED_PRECONDITION if it is not a regular file
 * @throws {SnapshotError} RESOURCE_EXHAUSTED if there is too little space for it
 */
export function copyFile(path: string, copy: string): void {
  const from = openPlain(path, constants.O_RDONLY);
  try {
    const { size } = fstatSync(from);
    checkSpace(path, copy, from, size);
    const to = openPlain(copy, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      const block = Buffer.allocUnsafe(BLOCK_BYTES);
      for (const stretch of stretchesOf(from, size)) copyStretch(from, to, stretch, block);
      ftruncateSync(to, size);
    } finally {
      closeSync(to);
    }
  } finally {
    closeSync(from);
  }
}

function checkSpace(path: string, copy: string, fd: number, size: number): void {
  let needed = 0;
  for (const { from, to } of stretchesOf(fd, size)) needed += to - from;
  const { bavail, bsize } = statfsSync(dirname(copy));
  const free = bavail * bsize;
  if (needed <= free * MOST_OF_FREE) return;
  throw new SnapshotError(
    'RESOURCE_EXHAUSTED',
    `${quote(path)} holds ${needed} bytes, too many for a copy in ${quote(dirname(copy))}, where ${free} are free`,
    { hint: 'free some space there, or set TMPDIR to a directory for temporary files that has more' },
  );
}

/** Copies a stretch. If the file has become shorter meanwhile, the rest stays a hole. */
function copyStretch(from: number, to: number, stretch: Stretch, block: Buffer): void {
  for (let at = stretch.from; at < stretch.to;) {
    const length = readSync(from, block, 0, Math.min(block.length, stretch.to - at), at);
    if (length === 0) return;
    for (let written = 0; written < length;) {
      written += writeSync(to, block, written, length - written, at + written);
    }
    at += length;
  }
}

import { closeSync, constants, fstatSync, readSync } from 'node:fs';
import { openPlain } from '../../linux/plain-file.ts';

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC = 0x377f0682;

/** Continues SQLite's checksum of the WAL: over pairs of 32-bit words, in either byte order. */
function checksum(bytes: Buffer, bigEndian: boolean, [first, second]: Sums): Sums {
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let a = first;
  let b = second;
  for (let at = 0; at < bytes.length; at += 8) {
    a = (a + words.getUint32(at, !bigEndian) + b) >>> 0;
    b = (b + words.getUint32(at + 4, !bigEndian) + a) >>> 0;
  }
  return [a, b];
}

type Sums = readonly [number, number];

function sumsAt(header: Buffer, offset: number): Sums {
  return [header.readUInt32BE(offset), header.readUInt32BE(offset + 4)];
}

function isSame(a: Sums, b: Sums): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

/** How often a log has to look damaged: a frame that is read while it is written looks so too, but only then. */
const READINGS = 3;

/**
 * Searches a write-ahead log for frames that SQLite silently ignores: those from the first one on whose checksum is
 * wrong. At the end of a log that is the rest of an interrupted write, and nothing is lost. If valid frames of the
 * same log follow, it is damage, or an interrupted write of which the disk kept only the later part.
 *
 * The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
 *
 * @returns what is wrong; `undefined` if nothing is
 */
export function findWalDamage(file: string): string | undefined {
  const fd = openPlain(file, constants.O_RDONLY);
  try {
    let damage: string | undefined;
    for (let reading = 0; reading < READINGS; reading += 1) {
      damage = readDamage(fd);
      if (damage === undefined) return undefined;
    }
    return damage;
  } finally {
    closeSync(fd);
  }
}

function readDamage(fd: number): string | undefined {
  const { size } = fstatSync(fd);
  if (size === 0) return undefined;
  const header = Buffer.alloc(HEADER_BYTES);
  if (readSync(fd, header, 0, HEADER_BYTES, 0) < HEADER_BYTES) return 'it ends within its header';
  const magic = header.readUInt32BE(0);
  if ((magic & ~1) >>> 0 !== MAGIC) return 'it does not begin like a write-ahead log';
  const bigEndian = (magic & 1) === 1;
  let sums = checksum(header.subarray(0, 24), bigEndian, [0, 0]);
  if (!isSame(sums, sumsAt(header, 24))) return 'the checksum of its header is wrong';
  const page = header.readUInt32BE(8);
  if (page < 512 || page > 65_536) return `its header gives a page size of ${page} bytes`;
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + page);
  let broken: number | undefined;
  for (let number = 1, at = HEADER_BYTES; at + frame.length <= size; number += 1, at += frame.length) {
    if (readSync(fd, frame, 0, frame.length, at) < frame.length) break;
    // The salts distinguish the frames of this log from older ones that it has not overwritten yet.
    const current = frame.compare(header, 16, 24, 8, 16) === 0;
    if (broken === undefined) {
      sums = checksum(
        frame.subarray(FRAME_HEADER_BYTES),
        bigEndian,
        checksum(frame.subarray(0, 8), bigEndian, sums),
      );
      if (!current || !isSame(sums, sumsAt(frame, 16))) broken = number;
    } else if (current) {
      // A changed header means that a writer restarted the log meanwhile.
      const again = Buffer.alloc(HEADER_BYTES);
      readSync(fd, again, 0, HEADER_BYTES, 0);
      return again.equals(header)
        ? `frame ${broken} cannot be read, and frame ${number} after it is of the same log`
        : undefined;
    }
  }
  return undefined;
}

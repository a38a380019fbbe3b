import { readFileSync } from 'node:fs';

/** The id of this boot of the machine: no two are the same. */
export function currentBoot(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

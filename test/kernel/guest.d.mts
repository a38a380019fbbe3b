/** A machine that is booted. */
export interface Guest {
  /** What it has printed, once it is off. */
  readonly ended: Promise<string>;
  /** Cuts its power: what it has not written to its disk is lost. */
  readonly kill: () => void;
}

/**
 * Boots a machine that runs a command and is turned off when that has ended.
 *
 * @param machine its `image` is a filesystem of the type `filesystem`, which is at `/media` there; `work` is a
 *   directory, which it can write to as `/run/shared`; `command` is run in this checkout, with more variables
 */
export function bootGuest(machine: {
  filesystem: string;
  image: string;
  work: string;
  command: readonly string[];
  env?: Readonly<Record<string, string>>;
}): Guest;

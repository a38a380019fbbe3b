import { closeSync } from 'node:fs';
import { endianness } from 'node:os';
import { checked, sendto, socket } from './foreign.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;

/** The `struct sockaddr_un` of a unix socket. A name that begins with `@` is an abstract one. */
function toAddress(name: string): Buffer {
  const family = Buffer.alloc(2);
  if (endianness() === 'LE') family.writeUInt16LE(AF_UNIX);
  else family.writeUInt16BE(AF_UNIX);
  return Buffer.concat([family, Buffer.from(name.startsWith('@') ? `\0${name.slice(1)}` : name)]);
}

/**
 * Sends the state of this service to the service manager, if there is one that set `NOTIFY_SOCKET`. The format:
 * https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 *
 * @throws a system error if nothing listens on the socket
 */
export function notifyManager(state: Readonly<Record<string, string>>): void {
  const name = process.env['NOTIFY_SOCKET'];
  if (name === undefined || !/^[/@]./.test(name)) return;
  const text = Object.entries(state).map(([key, value]) => `${key}=${value}`);
  const message = Buffer.from(text.join('\n'));
  const address = toAddress(name);
  const fd = checked(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    checked(sendto(fd, message, message.length, MSG_NOSIGNAL, address, address.length), 'sendto');
  } finally {
    closeSync(fd);
  }
}

/** The first descriptor that a service manager passes. */
const FIRST_PASSED = 3;

/**
 * The sockets that the service manager has opened for this process. It removes the variables that say so from the
 * environment, so that the processes started by this one do not take the sockets for theirs.
 */
export function takePassedSockets(): number[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(pid) !== process.pid || !/^\d{1,3}$/.test(count ?? '')) return [];
  return Array.from({ length: Number(count) }, (_, index) => FIRST_PASSED + index);
}

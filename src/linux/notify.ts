import { closeSync } from 'node:fs';
import { endianness } from 'node:os';
import { checked, sendto, socket } from './foreign.ts';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;

/** The address of a unix socket, as the kernel takes it; a name that begins with `@` is an abstract one. */
function toAddress(name: string): Buffer {
  const family = Buffer.alloc(2);
  if (endianness() === 'LE') family.writeUInt16LE(AF_UNIX);
  else family.writeUInt16BE(AF_UNIX);
  return Buffer.concat([family, Buffer.from(name.startsWith('@') ? `\0${name.slice(1)}` : name)]);
}

/**
 * Tells the service manager how this service is, if it wants to know: it has said in `NOTIFY_SOCKET` where. The format:
 * https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 *
 * @throws what the operating system says if nobody is there
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
 * The sockets that the service manager has opened for this process. They are taken once: what this process starts is
 * not to take them for its own.
 */
export function takePassedSockets(): number[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete process.env[name];
  if (Number(pid) !== process.pid || !/^\d{1,3}$/.test(count ?? '')) return [];
  return Array.from({ length: Number(count) }, (_, index) => FIRST_PASSED + index);
}

import {
  chmodSync,
  closeSync,
  constants,
  linkSync,
  lstatSync,
  mkdtempSync,
  openSync,
  rmSync,
  rmdirSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { SnapshotError, toSnapshotError } from '../errors.ts';
import { tryLock } from '../linux/file-calls.ts';
import { errnoOf } from '../linux/errno.ts';
import { guarded, warn } from '../guarded.ts';
import { quote } from '../quote.ts';

/** The longest path that a socket can have, in bytes. */
const MAX_PATH_BYTES = 107;

const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** A socket that is listened on. */
export interface Listener {
  /** Its path, or the number of its descriptor. */
  readonly address: string;
  /** Accepts no more connections, and removes the socket if it was made here. Open connections stay open. */
  close(): void;
}

/** Called for every connection. */
type OnConnection = (socket: Socket) => void;

/**
 * Listens on a new Unix socket, which has mode 0600 from the moment it can be found. A socket that nobody listens on any
 * more is replaced. A server holds the lock on `<address>.lock`, so that of two servers that start at once one is refused.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if the address is not a possible path of a socket
 * @throws {SnapshotError} FAILED_PRECONDITION if another server listens there, a file that is not a socket is there, or
 *   the directory is missing
 * @throws {SnapshotError} PERMISSION_DENIED if others may write to the directory
 */
export async function listenOn(address: string, onConnection: OnConnection): Promise<Listener> {
  const path = checkAddress(address);
  try {
    const unlock = lock(path);
    try {
      await removeStale(path);
      const server = await bind(path, onConnection);
      const { ino } = lstatSync(path);
      return {
        address: path,
        close() {
          // A file that has replaced it since is not ours.
          if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) unlinkSync(path);
          server.close(guarded(unlock));
        },
      };
    } catch (error) {
      unlock();
      throw error;
    }
  } catch (error) {
    throw toSnapshotError(error, `listening on ${quote(path)}`);
  }
}

/** Listens on a socket that the parent process has opened, and that stays its own. */
export async function listenOnDescriptor(fd: number, onConnection: OnConnection): Promise<Listener> {
  const server = makeServer(onConnection);
  try {
    await new Promise<void>((done, fail) => {
      server.once('error', fail).listen({ fd }, done);
    });
  } catch (error) {
    throw toSnapshotError(error, `listening on descriptor ${fd}`);
  }
  return { address: `descriptor ${fd}`, close: () => server.close() };
}

/** A server whose errors end nothing: that of `listen` has its own listener, and after a failed `accept` others may do. */
function makeServer(onConnection: OnConnection): Server {
  const server = createServer((socket) => {
    try {
      onConnection(socket);
    } catch (error) {
      socket.destroy();
      warn(error, 'a connection has been closed');
    }
  });
  return server.on('error', (error) => server.listening && warn(error, 'a connection could not be accepted'));
}

function checkAddress(address: string): string {
  if (address === '' || address.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `${quote(address)} is not the path of a socket`);
  }
  const path = resolve(address);
  // The socket is first made in a temporary directory, whose path can be longer than the address.
  const longest = Math.max(
    Buffer.byteLength(path),
    Buffer.byteLength(temporaryPrefix(path)) + '123456/s'.length,
  );
  if (longest > MAX_PATH_BYTES) {
    throw new SnapshotError('INVALID_ARGUMENT', `the path ${quote(path)} is too long for a socket`, {
      hint: `it can have ${MAX_PATH_BYTES} bytes`,
    });
  }
  const directory = dirname(path);
  const status = statSync(directory, { throwIfNoEntry: false });
  if (status?.isDirectory() !== true) {
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(directory)} is not a directory`, {
      hint: 'make the directory of the socket first',
    });
  }
  const foreign = status.uid !== 0 && status.uid !== process.geteuid?.();
  if (foreign || ((status.mode & OTHERS_WRITE) !== 0 && (status.mode & STICKY) === 0)) {
    throw new SnapshotError('PERMISSION_DENIED', `others may put their own socket in ${quote(directory)}`, {
      hint: 'choose a directory that is yours or root’s and that only its owner may write to',
    });
  }
  return path;
}

function temporaryPrefix(path: string): string {
  return `${dirname(path)}/.`;
}

/** Takes the lock on an address. @returns a function that releases it */
function lock(path: string): () => void {
  const fd = openSync(`${path}.lock`, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    if (!tryLock(fd)) throw inUse(path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}

function inUse(path: string): SnapshotError {
  return new SnapshotError('FAILED_PRECONDITION', `another server listens on ${quote(path)}`, {
    hint: 'stop it, or choose another address',
  });
}

/** Makes room for a socket: removes one that nobody listens on, and nothing else. */
async function removeStale(path: string): Promise<void> {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) {
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(path)} exists and is not a socket`);
  }
  if (await isAlive(path)) throw inUse(path);
  unlinkSync(path);
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((done, fail) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      done(true);
    });
    const refused = (error: Error): void => {
      const errno = errnoOf(error);
      if (errno === 'ECONNREFUSED' || errno === 'ENOENT') done(false);
      // Its queue is full, or it is of another type: some process listens.
      else if (errno === 'EAGAIN' || errno === 'EPROTOTYPE') done(true);
      else fail(error);
    };
    probe.on('error', guarded(refused, fail));
  });
}

/** Makes a socket where nobody else can reach it, gives it its mode, and puts it in its place. */
async function bind(path: string, onConnection: OnConnection): Promise<Server> {
  const directory = mkdtempSync(temporaryPrefix(path));
  const temporary = join(directory, 's');
  const server = makeServer(onConnection);
  try {
    await new Promise<void>((done, fail) => {
      server.once('error', fail).listen(temporary, done);
    });
    chmodSync(temporary, 0o600);
    // Unlike a rename, it never replaces a file.
    linkSync(temporary, path);
    return server;
  } catch (error) {
    server.close();
    throw error;
  } finally {
    rmSync(temporary, { force: true });
    rmdirSync(directory);
  }
}

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
import { quote } from '../quote.ts';

/** The longest path that a socket can have, in bytes. */
const MAX_PATH_BYTES = 107;

const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** A socket that is listened on. */
export interface Listener {
  /** Its path, or which descriptor it is. */
  readonly address: string;
  /** Lets nobody in any more, and takes the socket away if it was made here. What is connected stays so. */
  close(): void;
}

/** Whom to tell of every connection. */
type OnConnection = (socket: Socket) => void;

/**
 * Listens on a new unix socket of mode 0600. It has that mode from the moment on at which it can be found. A socket
 * that nobody listens on any more is replaced; whoever serves an address holds the lock on `<address>.lock`, so that
 * of two servers that start at once one is refused.
 *
 * @throws {SnapshotError} INVALID_ARGUMENT if the address cannot be that of a socket
 * @throws {SnapshotError} FAILED_PRECONDITION if someone listens there, there is something else, or the directory is
 *   not there
 * @throws {SnapshotError} PERMISSION_DENIED if others may write to the directory
 */
export async function listenOn(address: string, onConnection: OnConnection): Promise<Listener> {
  const path = checkAddress(address);
  try {
    const unlock = lock(path);
    try {
      await takeAway(path);
      const server = await bind(path, onConnection);
      const { ino } = lstatSync(path);
      return {
        address: path,
        close() {
          // Whatever has been put in its place since is not ours.
          if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) unlinkSync(path);
          server.close(unlock);
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

/** Listens on a socket that was opened by whoever started this process, and stays theirs. */
export async function listenOnDescriptor(fd: number, onConnection: OnConnection): Promise<Listener> {
  const server = createServer(onConnection);
  try {
    await new Promise<void>((done, fail) => {
      server.once('error', fail).listen({ fd }, done);
    });
  } catch (error) {
    throw toSnapshotError(error, `listening on descriptor ${fd}`);
  }
  return { address: `descriptor ${fd}`, close: () => server.close() };
}

function checkAddress(address: string): string {
  if (address === '' || address.includes('\0')) {
    throw new SnapshotError('INVALID_ARGUMENT', `${quote(address)} is not the path of a socket`);
  }
  const path = resolve(address);
  // The socket is made in a directory of its own first, whose path is as long as that of any short name.
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
      hint: 'the directory of the socket has to be there',
    });
  }
  const foreign = status.uid !== 0 && status.uid !== process.geteuid?.();
  if (foreign || ((status.mode & OTHERS_WRITE) !== 0 && (status.mode & STICKY) === 0)) {
    throw new SnapshotError('PERMISSION_DENIED', `others may put a socket of theirs in ${quote(directory)}`, {
      hint: 'choose a directory that is yours or root’s and that only its owner may write to',
    });
  }
  return path;
}

function temporaryPrefix(path: string): string {
  return `${dirname(path)}/.`;
}

/** Takes the lock on an address. @returns what lets go of it */
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

/** Makes room for a socket: one that nobody listens on is taken away, and nothing else. */
async function takeAway(path: string): Promise<void> {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) {
    throw new SnapshotError('FAILED_PRECONDITION', `${quote(path)} is there and not a socket`);
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
    probe.once('error', (error) => {
      const errno = errnoOf(error);
      if (errno === 'ECONNREFUSED' || errno === 'ENOENT') done(false);
      // Its queue is full, or it is of another sort: there is someone.
      else if (errno === 'EAGAIN' || errno === 'EPROTOTYPE') done(true);
      else fail(error);
    });
  });
}

/** Makes a socket where nobody else can reach it, gives it its mode, and puts it in its place. */
async function bind(path: string, onConnection: OnConnection): Promise<Server> {
  const directory = mkdtempSync(temporaryPrefix(path));
  const temporary = join(directory, 's');
  const server = createServer(onConnection);
  try {
    await new Promise<void>((done, fail) => {
      server.once('error', fail).listen(temporary, done);
    });
    chmodSync(temporary, 0o600);
    // Unlike a rename, it replaces nothing that may have come there by now.
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

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { makeImage, noise } from './oci-image.ts';
import type { ImageArchive } from './oci-image.ts';
import type { TarEntry } from './tar.ts';

/** What containers of the image can run. */
const applets = [
  'cat chmod chown cp dd echo find id ln ls mkdir mkfifo mknod mv rm rmdir sed sh sleep stat sync touch true',
  'truncate',
].flatMap((line) => line.split(' '));

/** A capability (CAP_NET_RAW, effective) as the kernel keeps it. */
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** Too long for the header of a tar, with the longest name there can be. */
const longDirectory = `long/${'n'.repeat(200)}`;
const longPath = `${longDirectory}/${'m'.repeat(255)}`;

const notUtf8 = Buffer.from('odd/\xffnot \xfe utf-8', 'latin1');

/**
 * The image of the tests: a busybox that needs nothing else, one of every kind of file and attribute in four
 * layers, and all that a layer can do to those below it. The fifth changes nothing.
 */
export function makeTestImage(name: string): ImageArchive {
  return makeImage(name, [
    { entries: base() },
    { entries: changes(), gzip: true },
    { entries: many('many', 400), gzip: true },
    { entries: again() },
    { entries: [root] },
  ]);
}

/** An image whose second layer takes a while to unpack. Its layers are in the directories `one`, `two` and `three`. */
export function makeLargeImage(name: string): ImageArchive {
  return makeImage(name, [
    { entries: many('one', 100) },
    { entries: many('two', 2500), gzip: true },
    { entries: many('three', 100) },
  ]);
}

/** An image whose containers wait, as the one that holds a pod together does. */
export function makeWaitingImage(name: string): ImageArchive {
  return makeImage(name, [{ entries: base() }, { entries: many('many', 100) }], ['/bin/sleep', '100000']);
}

const root: TarEntry = { path: './', type: 'directory', mode: 0o755, mtime: 1_500_000_000 };

const directory = (path: string, more: Partial<TarEntry> = {}): TarEntry => ({
  path: `${path}/`,
  type: 'directory',
  ...more,
});

function* base(): Generator<TarEntry> {
  const busybox = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim();
  yield root;
  yield* ['bin', 'dev', 'etc', 'proc', 'run', 'srv', 'sys', 'deep', 'deep/er', 'odd', 'long'].map((path) =>
    directory(path),
  );
  yield directory('tmp', { mode: 0o1777 });
  yield { path: 'bin/busybox', mode: 0o755, content: readFileSync(busybox) };
  for (const applet of applets) yield { path: `bin/${applet}`, type: 'symlink', target: 'busybox' };
  yield { path: 'etc/passwd', content: 'root:x:0:0:root:/:/bin/sh\n' };
  yield { path: 'etc/group', content: 'root:x:0:\n' };
  yield { path: 'etc/resolv.conf' };

  // What a file can be.
  yield { path: 'odd/setuid', mode: 0o4755, uid: 5, gid: 6, content: 'setuid' };
  yield { path: 'odd/setgid', mode: 0o2751, uid: 7, gid: 8, content: 'setgid' };
  yield { path: 'odd/none', mode: 0, content: 'mode 000' };
  yield directory('odd/sticky', { mode: 0o1770, uid: 1000, gid: 1000 });
  yield directory('odd/setgid.d', { mode: 0o2775, gid: 50 });
  yield { path: 'odd/owner', uid: 4_000_000_000, gid: 3_000_000_000, content: 'far away' };
  yield { path: 'odd/fifo', type: 'fifo', mode: 0o600 };
  yield { path: 'odd/null', type: 'character-device', mode: 0o666, device: [1, 3] };
  yield { path: 'odd/disk', type: 'block-device', mode: 0o660, gid: 6, device: [7, 300] };
  yield { path: 'odd/link', type: 'symlink', target: '/etc/passwd', uid: 9, gid: 10 };
  yield { path: 'odd/dangling', type: 'symlink', target: '../../no/where' };
  yield { path: 'odd/farther', type: 'symlink', target: `/${'t'.repeat(300)}` };
  yield { path: 'odd/empty' };
  yield { path: 'odd/old', mtime: '-86400.5' };
  yield { path: 'odd/precise', mtime: '1234567890.123456789' };
  yield { path: 'odd/future', mtime: '4102444800' };
  yield {
    path: 'odd/attributes',
    content: 'x',
    xattrs: { 'user.note': 'hello', 'user.bytes': noise('x', 64) },
  };
  yield directory('odd/attributes.d', { xattrs: { 'user.of': 'a directory', 'trusted.note': 'root only' } });
  yield { path: 'odd/capable', mode: 0o755, content: 'ping', xattrs: { 'security.capability': capability } };
  yield { path: 'odd/large', content: noise('large', 3 << 20) };
  yield { path: 'odd/zeros', content: Buffer.alloc(5 << 20) };

  // What a name can be.
  yield { path: notUtf8, content: 'bytes' };
  yield { path: 'odd/with space, comma: colon\\ and\nnewline' };
  yield { path: 'odd/ünïcödé \u{1F600}' };
  yield { path: 'odd/.hidden' };
  yield directory(longDirectory);
  yield { path: longPath, content: 'far down' };

  // Hard links, also of special files.
  yield { path: 'deep/one', content: 'one inode' };
  yield { path: 'deep/two', type: 'link', target: 'deep/one' };
  yield { path: 'deep/er/three', type: 'link', target: 'deep/one' };
  yield { path: 'deep/fifo', type: 'link', target: 'odd/fifo' };
  yield { path: 'deep/dangling', type: 'link', target: 'odd/dangling' };

  // What the layers above are going to change.
  for (const path of ['gone', 'goes', 'opaque', 'replaced', 'kept', 'by-container']) {
    yield directory(`srv/${path}`);
    yield { path: `srv/${path}/file`, content: path };
    yield directory(`srv/${path}/sub`);
    yield { path: `srv/${path}/sub/file`, content: `${path}, further down` };
  }
  for (const path of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'to-directory'])
    yield { path: `srv/${path}`, content: path };
}

function* changes(): Generator<TarEntry> {
  yield root;
  yield directory('srv', { mode: 0o750, uid: 3, mtime: 1_600_000_000 });
  yield { path: 'srv/.wh.gone' };
  yield { path: 'srv/.wh.a' };
  yield { path: 'srv/.wh.never-was' };
  yield directory('srv/opaque', { mode: 0o700 });
  yield { path: 'srv/opaque/.wh..wh..opq' };
  yield { path: 'srv/opaque/new', content: 'the only one' };
  yield directory('srv/kept');
  yield { path: 'srv/kept/.wh.file' };
  yield { path: 'srv/kept/added' };
  yield { path: 'srv/b', content: 'another b' };
  yield { path: 'srv/c', type: 'symlink', target: 'b' };
  yield directory('srv/to-directory');
  yield { path: 'srv/to-directory/file', content: 'where a file was' };
  yield { path: 'srv/replaced', type: 'symlink', target: 'kept' };
  // In a directory of which this layer says nothing.
  yield { path: 'deep/er/.wh.three' };
  yield { path: 'odd/sticky/implied', content: 'its directory is from below' };
  yield {
    path: 'odd/capable',
    mode: 0o755,
    content: 'changed',
    xattrs: { 'security.capability': capability },
  };
}

function* many(at: string, count: number): Generator<TarEntry> {
  yield root;
  yield directory(at);
  yield { path: `${at}/first`, content: noise('first', 1 << 20) };
  for (let i = 0; i < count; i += 1) {
    if (i % 100 === 0) yield directory(`${at}/${i / 100}`);
    yield { path: `${at}/${Math.floor(i / 100)}/${i}`, content: noise(`${i}`, (i * 37) % 2000), uid: i };
  }
  yield { path: `${at}/last`, type: 'link', target: `${at}/first` };
}

function* again(): Generator<TarEntry> {
  yield root;
  yield directory('srv', { mtime: 1_600_000_001 });
  // What the second layer took away is back, as something else.
  yield directory('srv/gone');
  yield { path: 'srv/gone/other', content: 'back' };
  yield { path: 'srv/a', type: 'fifo' };
  yield directory('srv/opaque/sub');
  yield { path: 'srv/opaque/sub/other' };
  yield { path: 'many/.wh.first' };
  yield { path: 'many/0/.wh..wh..opq' };
  yield { path: 'many/0/7', content: 'lucky' };
}

import { execFileSync } from 'node:child_process';

/** Runs a script and gives what it printed, byte by byte. */
export function sh(script: string, cwd: string): string {
  return execFileSync('bash', ['-euc', script], {
    cwd,
    encoding: 'latin1',
    maxBuffer: 64 * 1024 * 1024,
    // From a socket, which a pipe of Node is, bash would take itself for a remote shell and read its start files.
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** What `makeOddTree` and `describeTree` need beside root. */
export const treeCommands = ['getfattr', 'setfacl', 'setcap', 'python3'];

/** Fills a directory with one of every kind of file, attribute and name that a layer can hold. */
export function makeOddTree(directory: string): void {
  sh(
    `
    mkdir -p deep/er acl sticky unreadable opaque
    mkfifo fifo
    mknod block b 7 9
    mknod character c 5 6
    mknod whiteout c 0 0
    ln whiteout whiteout-again
    ln -s nowhere link
    ln -s /etc/passwd deep/link
    ln link link-again
    ln fifo deep/fifo-again
    python3 - <<'END'
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind('socket'); s.close()
os.mkdir(b'bad\\xff'); open(b'bad\\xff/\\xfe\\n', 'w').write('z')
os.mkdir('x' * 255); open('x' * 255 + '/' + 'y' * 255, 'w').write('long')
with open('sparse', 'wb') as f:
    f.truncate(50 << 20); f.seek(10 << 20); f.write(b'data'); f.seek(30 << 20); f.write(b'more')
with open('hole', 'wb') as f: f.truncate(64 << 20)
with open('large', 'wb') as f: f.write(os.urandom(20 << 20))
for size in (0, 1, 4095, 4096, 131072, 131073):
    open(f'size-{size}', 'wb').write(os.urandom(size))
END
    ln large large-again
    ln large deep/er/large-again
    chown 5:6 large deep/er; chown -h 7:8 link; chown 9:10 character
    chmod 6755 large; chmod 1777 sticky; chmod 000 unreadable size-1; chmod 2750 deep
    setfattr -n user.note -v hello large
    setfattr -n user.empty size-4096
    setfattr -n trusted.note -v deep deep
    setfattr -h -n trusted.note -v link link
    setfattr -n trusted.overlay.opaque -v y opaque
    setfacl -m u:7:rwx,g:8:r acl; setfacl -d -m u:8:r acl; setfacl -m u:9:rw size-4095
    setcap cap_net_raw+ep sparse
    touch -h -d '1999-01-02 03:04:05.123456789' link large fifo whiteout
    touch -d '1969-12-31 23:59:58.000000001' size-0
    touch -d '2100-05-06 07:08:09.987654321' deep .`,
    directory,
  );
}

/** All that there is to know of a tree, as text: two trees are the same if their descriptions are. */
export function describeTree(directory: string): string {
  return sh(
    `
    export LC_ALL=C
    find . -printf '%P\\0%y %m %U:%G %s %T@ %l links ' \\( -type d -printf '-' -o -printf '%n' \\) -printf '\\n' |
      sed 's/^\\(.*\\)\\(d [0-9]* [0-9:]*\\) [0-9]* /\\1\\2 /' | sort
    find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex --absolute-names
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    find . \\( -type b -o -type c \\) -print0 | sort -z | xargs -0 -r stat -c '%n %t:%T'
    find . -links +1 -not -type d -printf '%i %P\\n' | sort -k 2 | awk '{ if (!($1 in n)) n[$1] = NR; $1 = n[$1]; print }'`,
    directory,
  );
}

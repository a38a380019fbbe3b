#!/bin/sh
# The first process of user-mode Linux, which has the file tree of this machine, read-only: sets up what tests need, runs
# them with a filesystem of their own for temporary files, and turns the machine off. `run.mjs` starts it.
# WORK (a directory of this machine) and FILESYSTEM are in the command line of the kernel.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/home
mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
  case $word in WORK=* | FILESYSTEM=*) export "$word" ;; esac
done
mount -t sysfs sysfs /sys
exec < /dev/null > /dev/console 2>&1
mkdir /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -sf pts/ptmx /dev/ptmx
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
for module in fs/overlayfs/overlay drivers/block/loop; do
  busybox insmod "/usr/lib/uml/modules/$(uname -r)/kernel/$module.ko"
done
busybox ifconfig lo 127.0.0.1 up

mkdir /run/shared /run/home
mount -t hostfs -o "$WORK" none /run/shared
mount -t "$FILESYSTEM" /dev/ubda /media && chmod 1777 /media && TMPDIR=/media sh /run/shared/command.sh
sync
echo o > /proc/sysrq-trigger
sleep 60

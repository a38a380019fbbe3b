#!/bin/sh
# Starts the process of a test file in a mount namespace of its own, or the mount namespaces that one file makes would
# hold what another has mounted; and in a process namespace of its own, or a driver would look for what uses a layer in
# the mount namespaces of all processes of the machine.
exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$TEST_NODE" "$@"

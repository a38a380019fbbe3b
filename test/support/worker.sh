#!/bin/sh
# Starts the process of a test file in a mount namespace of its own, or the mount namespaces that one file makes would
# hold what another has mounted.
exec unshare --mount --propagation private "$TEST_NODE" "$@"

#!/usr/bin/env bash
# Compiles and vets all packages and their tests for the systems that people work on, up to machine code: see
# ci/platforms. There is no such machine here to run on what is not for Linux.
#
#   ci/platforms.sh                    all of them
#   ci/platforms.sh darwin/arm64 ...   only these
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
# How reports are written on other systems can be tried on this one: only that code is compiled for it as well.
go test -vet=off -tags other ./harness/writefile || status=1
go run ./ci/platforms "$@" || status=1
exit $status

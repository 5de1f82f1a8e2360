#!/usr/bin/env bash
# Compiles netproof, and vets all packages and their tests, for the systems that people work on. What is not for Linux
# is only compiled: there is no such machine here to run it on.
#
#   ci/platforms.sh                    all of them
#   ci/platforms.sh darwin/arm64 ...   only these
#
# go vet needs the packages that netproof needs compiled for each platform, once: 6 minutes of a processor for each,
# then 10 seconds. CGO is off, as in the programs that make build builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -eq 0 ]; then
	set -- linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath -buildvcs=false"

status=0
# How reports are written on other systems can be tried on this one: only that code is compiled for it as well.
go test -vet=off -tags other ./harness/writefile || status=1

for platform in "$@"; do
	began=$SECONDS
	export GOOS=${platform%/*} GOARCH=${platform#*/}
	# Everything that is wrong is said; the program is linked once all packages compile.
	if go vet ./... && go build -o "$work/" ./cmd/netproof; then
		printf 'platforms: %-13s ok      %4d s\n' "$platform" $((SECONDS - began))
	else
		printf 'platforms: %-13s FAILED  %4d s\n' "$platform" $((SECONDS - began)) >&2
		status=1
	fi
done
exit $status

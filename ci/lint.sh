#!/usr/bin/env bash
# Runs golangci-lint with .golangci.yml. The linter is pinned by ci/tools/golangci-lint/go.mod, a module of its own so
# that what it needs does not become what netproof needs, and built once into a cache of the user, keyed by that module
# and the Go release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=ci/tools/golangci-lint
cache=${NETPROOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netproof}/tools
key=$(cat "$tool/go.mod" "$tool/go.sum" <(go env GOVERSION GOOS GOARCH) | sha256sum | cut -c1-16)
linter=$cache/golangci-lint-$key

mkdir -p "$cache"
exec 9>"$cache/golangci-lint.lock" # two that build it at once take twice as long, each
flock 9
if [ ! -x "$linter" ]; then
	echo "lint: building golangci-lint, once; this takes some minutes" >&2
	part=$(mktemp "$cache/.golangci-lint.XXXXXX")
	trap 'rm -f "$part"' EXIT
	GOWORK=off go build -C "$tool" -trimpath -buildvcs=false -ldflags '-s -w' -o "$part" \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	chmod 755 "$part"
	mv "$part" "$linter"
fi
exec 9>&-
exec "$linter" run "$@"

#!/usr/bin/env bash
# Proves scenarios on a real kind cluster with Calico, through exec streams and from inside the pods' network namespaces, and on the
# embedded cluster, and compares the verdicts cell by cell. Starts a Docker engine if none runs (and stops it again) and builds the images
# that cannot be pulled.
#
#   ci/test-kind.sh                 fixtures/core, IPv4
#   ci/test-kind.sh PATH ...        other scenarios
#   IP_FAMILY=dual ci/test-kind.sh  another IP family
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

paths=("$@")
[ ${#paths[@]} -gt 0 ] || paths=(fixtures/core)
family=${IP_FAMILY:-ipv4}
work=$(mktemp -d)
name=ci-$$
started=

# shellcheck disable=SC2329 # called by the trap
cleanup() {
	bin/netproof cluster delete "$name" >/dev/null 2>&1 || true
	[ -z "$started" ] || ci/docker.sh stop || true
	rm -rf "$work"
}
trap cleanup EXIT

if ! docker info >/dev/null 2>&1; then
	ci/docker.sh start
	started=yes
fi
image=$(go run ./ci/offline --print)
go run ./ci/offline >&2
make build
manifest=$(find "${NETPROOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netproof}/images/programs" -name calico-vxlan.yaml -print -quit)

# verdicts prints the observed verdict of every cell that both clusters can judge.
verdicts() {
	jq -r '.scenarios[].steps[].cells[] | select(.result != "recorded") | "\(.id) \(.observed)"' "$1" | sort
}

# prove NAME ARGUMENT ... runs the scenarios and keeps the report; it fails unless every cell is as expected.
prove() {
	local report=$work/$1.json code=0
	shift
	bin/netproof run "$@" --ip-family "$family" --format table --format json --output "$report" "${paths[@]}" || code=$?
	return $code
}

status=0
prove local || status=$?
bin/netproof cluster create --provider kind --kind-image "$image" --cni-manifest "$manifest" --ip-family "$family" "$name"
for transport in exec netns; do
	bin/netproof run --provider kind --cluster "$name" --transport $transport --format table --format json \
		--output "$work/$transport.json" "${paths[@]}" || status=$?
	if ! diff <(verdicts "$work/local.json") <(verdicts "$work/$transport.json"); then
		echo "test-kind: the embedded cluster and kind ($transport) disagree" >&2
		status=1
	fi
done
bin/netproof cluster delete "$name"
if [ -n "$(docker ps -aq --filter "label=netproof.dev/cluster=$name")" ] || docker network inspect "netproof-$name" >/dev/null 2>&1; then
	echo "test-kind: something of cluster $name is left" >&2
	status=1
fi
exit $status

#!/usr/bin/env bash
# Measures what docs/performance.md quotes, with warm caches: how long a run takes from command to report, and the
# benchmarks. Numbers of one machine are to be compared with numbers of the same machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${RUNS:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# timed NAME COMMAND ... prints the times of several runs, sorted, so that the middle one is the median.
timed() {
	local name=$1 began times=()
	shift
	for _ in $(seq "$runs"); do
		began=$(date +%s%N)
		"$@" >"$work/out" 2>&1 || {
			cat "$work/out"
			echo "bench: $name failed" >&2
			return 1
		}
		times+=("$((($(date +%s%N) - began) / 1000000))")
	done
	printf '%-42s ms, sorted: %s\n' "$name" "$(printf '%s\n' "${times[@]}" | sort -n | tr '\n' ' ')"
}

echo "machine: $(nproc) processors, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), Linux $(uname -r), $(go env GOVERSION)"
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"

# As it is used: cluster, canaries, all steps, clean-up, report.
timed 'quickstart, command to report' bin/netproof run --quiet fixtures/quickstart
timed 'all scenarios of fixtures/core' bin/netproof run --quiet fixtures/core

# A cluster that stays, to see the parts of it.
cluster=bench-$$
timed_cluster() { bin/netproof cluster create "$cluster" --quiet && bin/netproof cluster delete "$cluster"; }
timed 'cluster of 2 nodes, created and deleted' timed_cluster

go test -run '^$' -bench . -benchmem ./... | grep -Ev '^(PASS|ok |goos|goarch|cpu|\?)' || true

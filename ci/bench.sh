#!/usr/bin/env bash
# Measures what docs/performance.md tells: the program from command to report, and the Go benchmarks. Each figure that compares stands
# beside what it is compared with, in one run: machines differ, and are noisy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TIMEFORMAT='%R s from command to report, %U s of CPU time here'
echo "quickstart:"
time bin/netproof run --quiet fixtures/quickstart | tail -n 1
echo "25 scenarios, cluster included:"
time bin/netproof run --quiet fixtures/core --shard 1/2 --select level=core | tail -n 1

go test ./probes/nsagent -run '^$' -bench . -benchtime "${BENCHTIME:-2s}"
go test ./suites -run '^$' -bench . -benchtime "${BENCHCOUNT:-3x}"

#!/usr/bin/env bash
# Runs every fuzz target for a time, 10 seconds unless another is given: ci/fuzz.sh 1m. What it finds is kept under the
# testdata of the package, to be committed with the fix.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1:-10s}
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	echo "fuzz: $(dirname "$file") $target for $time"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" </dev/null
done < <(git grep -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/func //')
if [ "$found" -eq 0 ]; then
	echo "fuzz: there is no fuzz target" >&2
	exit 1
fi

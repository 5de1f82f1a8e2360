#!/usr/bin/env bash
# Checks what a machine can check without running the tests: that files are formatted, generated files are current,
# modules are tidy, shell scripts parse, and linters pass. Says everything that is wrong, then fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
wrong() {
	echo "verify: $*" >&2
	status=1
}

unformatted=$(git ls-files -z -- '*.go' | xargs -0 gofmt -l)
[ -z "$unformatted" ] || wrong "gofmt would change: $unformatted"

# A tab counts as four columns. ci/job.yaml has what netproof rbac prints, in its lines.
wide=$(git ls-files -z -- '*.go' '*.sh' .ci/run Makefile .golangci.yml | xargs -0 awk '
	{ line = $0; gsub(/\t/, "    ", line) }
	line ~ /^ *(\/\/|#)/ && length(line) > 120 { print FILENAME ":" FNR }')
[ -z "$wide" ] || wrong "comments of more than 120 columns: $wide"

# go generate runs on a copy: what it writes must be what is there.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - 2>/dev/null | tar -xf - -C "$copy"
go generate -C "$copy" ./...
while IFS= read -r -d '' file; do
	[ -e "$file" ] || continue
	cmp -s "$file" "$copy/$file" || wrong "not current, run go generate ./...: $file"
done < <(git ls-files -z)

go mod tidy -diff || wrong "run go mod tidy"
go -C ci/tools/golangci-lint mod tidy -diff || wrong "run go mod tidy in ci/tools/golangci-lint"

while IFS= read -r -d '' script; do
	bash -n "$script" || wrong "does not parse: $script"
done < <(git ls-files -z -- '*.sh' .ci/run)

ci/lint.sh || wrong "see what the linters say above"

[ $status -eq 0 ] && echo "verify: all is well"
exit $status

#!/usr/bin/env bash
# Proves scenarios on real kind clusters with Calico and compares them, cell by cell, with the embedded cluster; and
# breaks a kind cluster while something is proven on it. Starts a Docker engine if none runs (and stops it again), and
# builds the images that cannot be pulled.
#
#   ci/test-kind.sh            fixtures/core, on IPv4 through exec streams and from inside the pods' network
#                              namespaces, and on dual stack; fixtures/quickstart with go test, ci/job.yaml inside
#                              the cluster, and the image of netproof images --full; the faults of suites/faults; the
#                              tests of harness/cluster/kind, and the example for e2e-framework
#   ci/test-kind.sh PATH ...   other scenarios, without the rest
#
#   LANES='ipv4 faults ...'    only some of it: ipv4 faults dual provider, which are all, and cilium
#   NETPROOF_TEST_KIND_SLOW=   leave out the fault that takes minutes
#   NETPROOF_TEST_LOGS=DIR     keep the reports and logs there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

paths=("$@")
default_lanes='ipv4 faults dual provider'
[ ${#paths[@]} -eq 0 ] || default_lanes='ipv4'
[ ${#paths[@]} -gt 0 ] || paths=(fixtures/core)
lanes=${LANES:-$default_lanes}
for lane in $lanes; do
	case $lane in
	ipv4 | faults | dual | provider | cilium) ;;
	*)
		echo "test-kind: no lane $lane: there are ipv4 faults dual provider cilium" >&2
		exit 2
		;;
	esac
done
work=$(mktemp -d)
logs=${NETPROOF_TEST_LOGS:-$work}
mkdir -p "$logs"
prefix=ci$$
cores=$(nproc)
started=
pids=()

# shellcheck disable=SC2329 # called by the trap
cleanup() {
	trap '' INT TERM # a second signal, as make sends it, must not end this
	for pid in "${pids[@]}"; do
		kill -TERM -- "-$pid" 2>/dev/null || true
	done
	wait || true
	for lane in $lanes; do
		bin/netproof cluster delete "$prefix-$lane" >/dev/null 2>&1 || true
	done
	[ -z "$started" ] || ci/docker.sh stop || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf 'test-kind: %s\n' "$*" >&2; }

if ! docker info >/dev/null 2>&1; then
	ci/docker.sh start
	started=yes
fi
wanted=()
case " $lanes " in *" cilium "*) wanted+=(--cilium) ;; esac
image=$(go run ./ci/offline --print "${wanted[@]}")
make build
manifest=$(find "${NETPROOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netproof}/images/programs" -name calico-vxlan.yaml -print -quit)

# create LANE FLAG ... makes the lane's cluster.
create() {
	local lane=$1
	shift
	bin/netproof cluster create --quiet --provider kind --kind-image "$image" "$@" "$prefix-$lane"
}

# delete LANE deletes the lane's cluster, and fails when something is left.
delete() {
	local left
	bin/netproof cluster delete "$prefix-$1" || return 1
	left=$(docker ps -aq --filter "name=^$prefix-$1-")$(docker network ls -q --filter "name=^netproof-$prefix-$1\$")
	if [ -n "$left" ]; then
		say "something of cluster $prefix-$1 is left: $left"
		return 1
	fi
}

# embedded FAMILY proves the scenarios on the embedded cluster.
embedded() {
	bin/netproof run --quiet --ip-family "$1" --format table --format json --output "$logs/embedded-$1.json" "${paths[@]}"
}

# beside_embedded FAMILY COMMAND ... runs a command while the scenarios are proven on the embedded cluster. It fails
# with 1 when those do not pass, and with 2 when the command fails.
beside_embedded() {
	local family=$1 pid status=0
	shift
	embedded "$family" >"$logs/embedded-$family.log" 2>&1 &
	pid=$!
	"$@" || status=2
	wait $pid || status=$((status ? status : 1))
	cat "$logs/embedded-$family.log"
	return $status
}

# on LANE TRANSPORT proves them on the lane's cluster.
on() {
	bin/netproof run --quiet --provider kind --cluster "$prefix-$1" --allow host-network --transport "$2" --format table --format json \
		--output "$logs/$1-$2.json" "${paths[@]}"
}

# control LANE ARGUMENT ... calls kubectl as the administrator of the lane's cluster.
control() {
	local lane=$1
	shift
	docker exec -i "$prefix-$lane-control-plane" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"
}

# ended LANE JOB returns when the Job has come to an end, and fails when that is not the right one.
ended() {
	local conditions
	for _ in $(seq 300); do
		conditions=$(control "$1" -n netproof-system get job "$2" -o jsonpath='{.status.conditions[?(@.status=="True")].type}') || return 1
		case $conditions in
		*Failed*) return 1 ;;
		*Complete*) return 0 ;;
		esac
		sleep 2
	done
	return 1
}

# in_cluster LANE runs netproof inside the cluster: as a Job, and as an Indexed Job over shards, with the rights that
# netproof rbac prints.
in_cluster() {
	local lane=$1 image shards status=0
	image=$(bin/netproof images --agent "$work/agent.tar") || return 1 # the nodes have it from the runs before
	sed "s|registry.example/netproof@sha256:0*|$image|" ci/job.yaml | control "$lane" apply -f - || return 1
	for job in netproof netproof-shards; do
		shards=$(control "$lane" -n netproof-system get job $job -o jsonpath='{.spec.parallelism}') || return 1
		# Shards that share too few processors starve each other, and say so instead of passing.
		control "$lane" -n netproof-system patch job $job --type=merge \
			-p "{\"spec\":{\"suspend\":false,\"parallelism\":$((shards < cores ? shards : cores))}}" || return 1
		ended "$lane" $job || status=1
		control "$lane" -n netproof-system logs -l batch.kubernetes.io/job-name=$job --prefix --tail=-1 || status=1
	done
	if [ -n "$(control "$lane" get namespaces -l netproof.dev/run -o name)" ]; then
		say "a Job left namespaces behind"
		status=1
	fi
	return $status
}

# by_image proves the quickstart in a container of the image that has netproof and its engines in it, with nothing else
# of this machine but the policies, and without a network.
by_image() {
	local image status=0
	image=$(bin/netproof images --full "$work/full.tar") || return 1
	docker load -q -i "$work/full.tar" || return 1
	rm "$work/full.tar"
	docker run --rm --privileged --network none -v "$root/fixtures/quickstart:/policies:ro" "$image" run --quiet /policies || status=1
	docker image rm "$image" >/dev/null || status=1
	return $status
}

lane_ipv4() {
	local status=0
	beside_embedded ipv4 create ipv4 --cni-manifest "$manifest" || status=$?
	[ $status -ne 2 ] || return 1
	on ipv4 exec || status=1
	on ipv4 netns || status=1
	go run ./ci/verdicts "$logs"/{embedded-ipv4,ipv4-exec,ipv4-netns}.json || status=1
	NETPROOF_CLUSTER=$prefix-ipv4 go run ./ci/gotest -count=1 ./suites -run TestQuickstart -args -provider kind -cni calico || status=1
	in_cluster ipv4 || status=1
	delete ipv4 || status=1
	by_image || status=1
	return $status
}

lane_dual() {
	local status=0
	beside_embedded dual create dual --cni-manifest "$manifest" --ip-family dual || status=$?
	[ $status -ne 2 ] || return 1
	on dual exec || status=1
	go run ./ci/verdicts "$logs"/{embedded-dual,dual-exec}.json || status=1
	delete dual || status=1
	return $status
}

lane_faults() {
	local status=0
	create faults --cni-manifest "$manifest" || return 1
	NETPROOF_TEST_KIND_CLUSTER=$prefix-faults NETPROOF_TEST_KIND_AGENT=$root/bin/netproof NETPROOF_TEST_KIND_SLOW=${NETPROOF_TEST_KIND_SLOW-1} \
		go run ./ci/gotest -count=1 -timeout 30m ./suites/faults || status=1
	delete faults || status=1
	return $status
}

# Scenarios that Cilium gets wrong: rules of a direction that policyTypes does not name (cilium issue 48703), and a
# named port of which pods have different numbers (cilium issue 30003).
cilium_mistakes=(fixtures/core/policytypes/rules-outside-the-types fixtures/core/ports/named-port-egress)

# Clusters made, used, interrupted, killed and removed; and the example for e2e-framework, on a cluster of its own.
lane_provider() {
	local status=0
	NETPROOF_TEST_KIND=1 NETPROOF_TEST_KIND_MANIFEST=$manifest NETPROOF_TEST_KIND_AGENT=$root/bin/netproof NETPROOF_KIND_IMAGE=$image \
		go run ./ci/gotest -count=1 -timeout 30m ./harness/cluster/kind || status=1
	NETPROOF_CNI_MANIFEST=$manifest NETPROOF_KIND_IMAGE=$image CGO_ENABLED=0 \
		go run ./ci/gotest -count=1 ./docs/examples/e2eframework -args -kind || status=1
	return $status
}

lane_cilium() {
	local status=0 chart mistake
	# It lies beside the images that ci/offline --cilium made, as may those of older versions.
	chart=$(find "${NETPROOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netproof}/images" -name 'cilium-*.tgz' -printf '%f %p\n' |
		sort -V | tail -n 1 | cut -d' ' -f2-)
	# By default Cilium lets a changed label wait for 5 s, and netproof changes one with every step to see when nodes
	# have caught up.
	create cilium --cni cilium --cni-chart "$chart" --cni-set identityChangeGracePeriod=1s || return 1
	if [ "${paths[*]}" = fixtures/core ]; then
		local paths others
		mapfile -t others < <(find fixtures/core -name scenario.yaml | grep -v "${cilium_mistakes[@]/#/-e}")
		for mistake in "${cilium_mistakes[@]}"; do
			local code=0
			paths=("$mistake")
			on cilium exec || code=$?
			# netproof has to find it, and where it does not, Cilium may have fixed it.
			[ $code -eq 1 ] || { say "$mistake on Cilium ended with code $code, not 1" && status=1; }
		done
		paths=("${others[@]}")
	fi
	on cilium exec || status=1
	delete cilium || status=1
	return $status
}

# Lanes wait for clusters much of the time, so two run side by side where there are cores for it. On fewer than four the
# nodes of two clusters starve each other: kubelet's own readiness probe of Calico times out, and a run rightly calls
# what it saw inconclusive. Each lane says what it has to say at its end.
at_once=$((cores >= 4 ? 2 : 1))
status=0
running=0
run_lane() {
	local began=$SECONDS code=0
	"lane_$1" >"$logs/lane-$1.log" 2>&1 || code=$?
	printf '\n--- kind: %s (%d s)\n' "$1" $((SECONDS - began))
	cat "$logs/lane-$1.log"
	return $code
}
set -m # a process group for each, which ends as a whole
for lane in $lanes; do
	if [ "$running" -ge $at_once ]; then
		wait -n || status=1
		running=$((running - 1))
	fi
	say "lane $lane begins"
	run_lane "$lane" &
	pids+=($!)
	running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
	wait -n || status=1
	running=$((running - 1))
done
exit $status

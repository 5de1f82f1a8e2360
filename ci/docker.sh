#!/usr/bin/env bash
# Makes a Docker engine run where none does, for the tests that need one.
#
#   ci/docker.sh start    if an engine answers, nothing; else install Debian's docker.io and start dockerd, as root
#   ci/docker.sh stop     end the dockerd that start started, and no other, and undo what it and kubelets changed
#   ci/docker.sh status   say whether an engine answers and whose it is; fails when none does
#
# On a machine whose kernel lets nobody have some capability (a nested virtual machine without CAP_SYS_RESOURCE) runc
# refuses kind's privileged containers: there dockerd gets ci/offline/internal/runcwrap as its default runtime.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/local/go/bin # under sudo

state=/run/netproof-docker
pidfile=$state/docker.pid
log=$state/dockerd.log

say() { echo "docker.sh: $*" >&2; }

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Settings of the whole machine that dockerd, and the kubelets in kind's nodes, change.
settings='vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes
net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.default.forwarding net.bridge.bridge-nf-call-iptables
net.bridge.bridge-nf-call-ip6tables fs.inotify.max_user_instances fs.inotify.max_user_watches'

# systemd, the kubelet and containerd of every node watch files: the kernel's 128 are used up by two nodes.
wanted_instances=8192
wanted_watches=524288

setting_file() { echo "/proc/sys/${1//.//}"; }

save_settings() {
	for name in $settings; do
		file=$(setting_file "$name")
		[ ! -r "$file" ] || echo "$name $(<"$file")"
	done >"$state/settings"
}

restore_settings() {
	[ -f "$state/settings" ] || return 0
	while read -r name value; do
		file=$(setting_file "$name")
		[ ! -e "$file" ] || [ "$(<"$file")" = "$value" ] || echo "$value" >"$file" || say "cannot restore $name=$value"
	done <"$state/settings"
}

raise() {
	file=$(setting_file "$1")
	[ "$(<"$file")" -ge "$2" ] || echo "$2" >"$file"
}

# lacks_capability tells that a capability below the highest that the kernel knows is not in the bounding set.
lacks_capability() {
	have=$(awk '$1 == "CapBnd:" { print $2 }' /proc/self/status)
	last=$(</proc/sys/kernel/cap_last_cap)
	[ $((16#$have)) -ne $(((1 << (last + 1)) - 1)) ]
}

# ours tells that the process in the pid file is the dockerd that start started.
ours() {
	[ -s "$pidfile" ] || return 1
	pid=$(<"$pidfile")
	[ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "^dockerd .*--pidfile $pidfile "
}

install_docker() {
	command -v dockerd >/dev/null 2>&1 && return
	command -v apt-get >/dev/null 2>&1 || {
		say "dockerd is missing, and this is no Debian: install Docker and run this again"
		exit 1
	}
	apt-get update -q >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker.io iptables >&2
}

start() {
	if answers; then
		say "a Docker engine answers already"
		return
	fi
	if [ "$(id -u)" -ne 0 ]; then
		say "no Docker engine answers, and only root can start one"
		exit 1
	fi
	install_docker
	mkdir -p "$state"
	exec 9>"$state/lock"
	flock 9
	if answers; then
		say "a Docker engine answers already"
		return
	fi
	if ! ours; then
		rm -f "$pidfile"
		save_settings
		iptables-save >"$state/iptables" 2>/dev/null || true
		ip6tables-save >"$state/ip6tables" 2>/dev/null || true
	fi
	raise fs.inotify.max_user_instances $wanted_instances
	raise fs.inotify.max_user_watches $wanted_watches
	runtime=()
	if lacks_capability; then
		say "a capability is missing on this machine: containers are started by ci/offline/internal/runcwrap"
		CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$state/runcwrap" ./ci/offline/internal/runcwrap
		runtime=(--add-runtime "netproof=$state/runcwrap" --default-runtime netproof)
	fi
	# A session of its own, so that it outlives the shell that runs this. The lock is not for it.
	setsid dockerd --pidfile "$pidfile" "${runtime[@]}" >"$log" 2>&1 </dev/null 9>&- &
	started=$!
	for _ in $(seq 300); do
		if answers; then
			say "dockerd $(docker version --format '{{.Server.Version}}') runs, process $(<"$pidfile"), log in $log"
			return
		fi
		kill -0 "$started" 2>/dev/null || [ -s "$pidfile" ] || break
		sleep 0.2
	done
	say "dockerd does not answer; the end of $log:"
	tail -n 20 "$log" >&2
	exit 1
}

# remove_rules takes out the chains, and the rules about bridges, that dockerd leaves, and sets the policy of forwarded
# packets back.
remove_rules() {
	family=$1
	command -v "$family-save" >/dev/null 2>&1 || return 0
	policy=$(sed -n 's/^:FORWARD \([A-Z]*\) .*/\1/p' "$state/$family" 2>/dev/null | tail -n 1)
	"$family-save" 2>/dev/null |
		sed -E -e '/DOCKER/d' -e '/ (docker0|br-[0-9a-f]{12})( |$)/d' -e '/^-A POSTROUTING .*-j MASQUERADE$/{/(docker0|br-[0-9a-f]{12})/d}' |
		"$family-restore" 2>/dev/null || say "could not remove rules of $family"
	[ -z "$policy" ] || "$family" -P FORWARD "$policy" 2>/dev/null || true
}

stop() {
	if ! ours; then
		say "no dockerd that ci/docker.sh started runs here; nothing to stop"
		return
	fi
	pid=$(<"$pidfile")
	bridges="docker0 $(docker network ls --quiet --filter driver=bridge 2>/dev/null | sed 's/^/br-/' | tr '\n' ' ')"
	kill -TERM "$pid"
	for _ in $(seq 300); do
		[ -d "/proc/$pid" ] || break
		sleep 0.2
	done
	if [ -d "/proc/$pid" ]; then
		say "dockerd $pid does not end; its log is $log"
		exit 1
	fi
	for bridge in $bridges; do
		ip link show dev "$bridge" >/dev/null 2>&1 || continue
		ip link delete "$bridge" || say "could not remove interface $bridge"
	done
	remove_rules iptables
	remove_rules ip6tables
	restore_settings
	rm -rf "$state"
	say "stopped"
}

status() {
	if ! answers; then
		say "no Docker engine answers"
		exit 1
	fi
	if ours; then
		say "dockerd $(docker version --format '{{.Server.Version}}') answers; ci/docker.sh started it, process $(<"$pidfile")"
	else
		say "dockerd $(docker version --format '{{.Server.Version}}') answers; somebody else started it"
	fi
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) status ;;
*)
	echo "usage: ci/docker.sh start|stop|status" >&2
	exit 2
	;;
esac

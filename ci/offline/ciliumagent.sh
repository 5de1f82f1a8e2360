#!/bin/sh
# Becomes cilium-agent, after two changes to what its container sees:
#  - kernel settings that the agent writes, and that belong to the whole machine, are private files;
#  - /proc has a list of modules. A kernel that loads none has no such file, and without it the agent stops.
set -eu

private=/run/cilium-agent
mkdir -p "$private/proc" "$private/links"

# The chart mounts the node's /proc/sys/kernel there, and tells the agent to look there (procfs in its ConfigMap).
for setting in unprivileged_bpf_disabled timer_migration; do
	file=/host/proc/sys/kernel/$setting
	[ -e "$file" ] || continue
	cat "$file" >"$private/$setting"
	mount --bind "$private/$setting" "$file"
done

# modules PROGRAM NAME ... lists the modules that the agent wants for a program, if the program does its work without
# them: here it is iptables on nf_tables, for which Debian's stands.
modules() {
	"$1" --table mangle --list-rules >/dev/null 2>&1 || return 0
	shift
	printf '%s 0 0 - Live 0x0\n' "$@"
}

if [ ! -e /proc/modules ]; then
	# Nobody can make a file in /proc. What takes its place has links to the real one: of the processes only to the
	# first, which becomes the agent, and to "self". It is moved there when it is whole, because the container runtime
	# looks into it whenever it starts a program in here, as for the hook that kubelet runs at this very moment.
	mount --rbind /proc "$private/proc"
	mount -t tmpfs -o mode=755 tmpfs "$private/links"
	ln -s "$private"/proc/* "$private/links/"
	{
		modules iptables ip_tables iptable_nat iptable_mangle iptable_raw iptable_filter
		modules ip6tables ip6_tables ip6table_mangle ip6table_raw ip6table_filter
	} >"$private/links/modules"
	mount --move "$private/links" /proc
fi

exec /usr/lib/cilium/cilium-agent "$@"

#!/bin/sh
# Installs the programs of the machine that netproof's local cluster calls, where they are missing.
#
#   ci/setup.sh             install what is missing; nothing to do is nothing done
#   ci/setup.sh --command   only print the command that installs everything, whatever is here already
#
# Knows Debian and Ubuntu, Fedora and its relatives, and Alpine. Needs root, or sudo that asks no password; without
# either it prints the command to run and leaves with 1. The packages are those of harness/cluster/local/hosttools,
# where a test compares the two lists.
set -eu

os_release=${NETPROOF_OS_RELEASE:-/etc/os-release}
tools='nft iptables ip6tables ipset conntrack ip nsenter'

# An ordinary user's PATH may lack the folders in which these programs lie.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

package_of() {
	case $family:$1 in
	*:nft) echo nftables ;;
	fedora:iptables | fedora:ip6tables) echo iptables-nft ;;
	*:iptables | *:ip6tables) echo iptables ;;
	*:ipset) echo ipset ;;
	debian:conntrack) echo conntrack ;;
	*:conntrack) echo conntrack-tools ;;
	fedora:ip) echo iproute ;;
	*:ip) echo iproute2 ;;
	alpine:nsenter) echo util-linux-misc ;;
	*:nsenter) echo util-linux ;;
	esac
}

# packages_of prints the packages of the tools given, each once, in their order.
packages_of() {
	list=
	for tool in "$@"; do
		name=$(package_of "$tool")
		case " $list " in
		*" $name "*) ;;
		*) list="$list${list:+ }$name" ;;
		esac
	done
	echo "$list"
}

find_family() {
	ID='' ID_LIKE=''
	if [ -r "$os_release" ]; then
		. "$os_release"
	fi
	for id in $ID ${ID_LIKE:-}; do
		case $id in
		debian | ubuntu) echo debian && return ;;
		fedora | rhel | centos) echo fedora && return ;;
		alpine) echo alpine && return ;;
		esac
	done
	echo unknown
}

install_command() {
	case $family in
	debian) echo "apt-get install -y --no-install-recommends $1" ;;
	fedora) echo "dnf install -y $1" ;;
	alpine) echo "apk add $1" ;;
	esac
}

family=$(find_family)

if [ "${1:-}" = --command ]; then
	if [ "$family" = unknown ]; then
		echo "setup: no package names known for this distribution; needed are: $tools" >&2
		exit 1
	fi
	# shellcheck disable=SC2086 # a list of words
	install_command "$(packages_of $tools)"
	exit 0
fi
if [ $# -gt 0 ]; then
	echo "usage: ci/setup.sh [--command]" >&2
	exit 2
fi

status=0

# Go comes from https://go.dev/doc/install: distributions seldom have a release that is new enough. A Go from 1.21 on
# fetches the release that go.mod asks for by itself, unless GOTOOLCHAIN forbids it.
if ! command -v go >/dev/null 2>&1 && [ ! -x /usr/local/go/bin/go ]; then
	echo "setup: Go is missing: install 1.26 or newer as https://go.dev/doc/install says" >&2
	status=1
fi

missing=
for tool in $tools; do
	command -v "$tool" >/dev/null 2>&1 || missing="$missing${missing:+ }$tool"
done
if [ -z "$missing" ]; then
	[ $status -ne 0 ] || echo "setup: nothing to install"
	exit $status
fi
echo "setup: missing: $missing"
if [ "$family" = unknown ]; then
	echo "setup: no package names known for this distribution; install these programs with its package manager" >&2
	exit 1
fi

# shellcheck disable=SC2086 # a list of words
command=$(install_command "$(packages_of $missing)")
if [ "$(id -u)" -eq 0 ]; then
	as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	as_root='sudo -n'
else
	echo "setup: needs root. Run: sudo $command" >&2
	exit 1
fi

if [ "$family" = debian ]; then
	# A fresh machine or container has no package lists yet.
	$as_root apt-get update -q
	as_root="$as_root env DEBIAN_FRONTEND=noninteractive"
fi
echo "setup: ${as_root:+$as_root }$command"
# shellcheck disable=SC2086 # lists of words
$as_root $command

for tool in $missing; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "setup: $tool is still missing after: $command" >&2
		status=1
	fi
done
exit $status

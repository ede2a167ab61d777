#!/usr/bin/env bash
# Runs a command with a real PostgreSQL and a real etcd at hand, and installs
# what is missing for that. Without a command it runs every test there is, with
# the race detector on.
#
#   test.sh [COMMAND ...]
#
# The servers run in a temporary folder, on free ports of the loopback address,
# and are stopped at the end. COMMAND finds their addresses in
# FENCEPOST_TEST_POSTGRES and FENCEPOST_TEST_ETCD.
#
# FENCEPOST_TEST_SERVERS names the folder in which the servers, and those that a
# test starts for itself, keep their data. Without it that is memory where there
# is enough, since no test cuts the power and a disk that syncs takes most of the
# time; what is measured belongs on a disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '== %s\n' "$*" >&2; }

install_missing() {
	./scripts/postgres.sh install
	need redis-tools redis-cli redis-benchmark
	need redis-server redis-server
	need strace strace
	need bindfs bindfs
	need sqlite3 sqlite3
	need git git
	need pgbouncer pgbouncer
	need systemd systemd-analyze /lib/systemd/systemd
	need supervisor supervisord supervisorctl
	need haproxy haproxy /usr/sbin/haproxy
}

# need PACKAGE COMMAND... installs a package one of whose commands is missing.
# Nothing of it is started on this machine, which RUNLEVEL=1 says.
need() {
	local package=$1 command
	for command in "${@:2}"; do
		if ! command -v "$command" >/dev/null; then
			step "installing $package"
			apt-get update -q >/dev/null
			RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$package" >/dev/null
			return
		fi
	done
}

# data_folder prints /dev/shm where 4 GiB are free there, else the folder of
# temporary files.
data_folder() {
	local free
	free=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)
	if [ "${free:-0}" -ge $((4 << 20)) ] && [ -w /dev/shm ]; then
		echo /dev/shm
	else
		echo "${TMPDIR:-/tmp}"
	fi
}

export FENCEPOST_TEST_SERVERS=${FENCEPOST_TEST_SERVERS:-$(data_folder)}
work=$(mktemp -d -p "$FENCEPOST_TEST_SERVERS")
chmod 755 "$work" # PostgreSQL runs as a user of its own
stop_servers() {
	local status=$?
	./scripts/postgres.sh stop "$work/postgres" >&2 || status=1
	./scripts/etcd.sh stop "$work/etcd" >&2 || status=1
	rm -rf "$work"
	exit "$status"
}

step "looking for what is missing"
install_missing
trap stop_servers EXIT
step "starting PostgreSQL and etcd, with their data in $FENCEPOST_TEST_SERVERS"
FENCEPOST_TEST_POSTGRES=$(./scripts/postgres.sh start "$work/postgres")
FENCEPOST_TEST_ETCD=$(./scripts/etcd.sh start "$work/etcd")
export FENCEPOST_TEST_POSTGRES FENCEPOST_TEST_ETCD
step "PostgreSQL at $FENCEPOST_TEST_POSTGRES, etcd at $FENCEPOST_TEST_ETCD"

# Without this the race detector makes the end of every process a second longer,
# of those that tests start too. A race is reported where it happens, not then.
export GORACE="atexit_sleep_ms=0 ${GORACE:-}"

if [ $# -gt 0 ]; then
	"$@"
	exit
fi

# gotestsum prints the failures last, and how many tests there were.
# Tests wait more than they compute, so that more of them run at once than there
# are processors. SQLite, which is C that was translated to Go, shares no memory
# with the goroutines of others, and takes three times as long under the race
# detector. Vet is make lint's, which make test runs first.
root=$PWD
race=$(cat scripts/race-flags)
gotestsum() {
	go tool -modfile="$root/integration/go.mod" gotestsum --format pkgname --format-hide-empty-pkg -- \
		$race -vet=off -parallel 4 -timeout 25m ./...
}
step "the library, its commands and examples"
gotestsum
step "the library against peers and faults"
(cd integration && gotestsum)

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
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '== %s\n' "$*" >&2; }

# install PACKAGE installs without starting any service.
install() {
	step "installing $1"
	apt-get update -q >/dev/null
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$1" >/dev/null
}

install_missing() {
	./scripts/postgres.sh install
	if ! command -v redis-cli >/dev/null || ! command -v redis-benchmark >/dev/null; then
		install redis-tools
	fi
	if ! command -v pgbouncer >/dev/null && [ ! -x /usr/sbin/pgbouncer ]; then
		install pgbouncer
	fi
}

work=$(mktemp -d)
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
step "starting PostgreSQL and etcd"
FENCEPOST_TEST_POSTGRES=$(./scripts/postgres.sh start "$work/postgres")
FENCEPOST_TEST_ETCD=$(./scripts/etcd.sh start "$work/etcd")
export FENCEPOST_TEST_POSTGRES FENCEPOST_TEST_ETCD
step "PostgreSQL at $FENCEPOST_TEST_POSTGRES, etcd at $FENCEPOST_TEST_ETCD"

if [ $# -gt 0 ]; then
	"$@"
	exit
fi

# gotestsum prints the failures last, and how many tests there were.
root=$PWD
gotestsum() { go tool -modfile="$root/integration/go.mod" gotestsum --format pkgname --format-hide-empty-pkg -- "$@"; }
step "the library, its commands and examples"
gotestsum -race -timeout 15m ./...
step "the library against peers and faults"
(cd integration && gotestsum -race -timeout 15m ./...)

#!/usr/bin/env bash
# A private PostgreSQL server on the loopback address, for tests and trials.
#
#   postgres.sh start DIR   start the server kept in DIR, made if it is missing; prints its URL
#   postgres.sh stop DIR    shut it down and wait until it has gone
#   postgres.sh crash DIR   end it as a crash would, and wait until it has gone
#   postgres.sh install     install PostgreSQL's programs where there are none (Debian, Ubuntu)
#
# The server really syncs (fsync, synchronous_commit). User postgres needs no
# password; every other user needs one (scram). Settings in DIR/extra.conf come
# last. A second start of the same DIR uses the same port.
#
# FENCEPOST_TEST_POSTGRES_BIN names the folder of initdb, pg_ctl and postgres.
# Without it they are the newest that are installed.
set -euo pipefail

die() {
	echo "postgres.sh: $*" >&2
	exit 1
}

# bin_dir prints the folder of PostgreSQL's programs, and fails where there are none.
bin_dir() {
	local newest
	if [ -n "${FENCEPOST_TEST_POSTGRES_BIN:-}" ]; then
		[ -x "$FENCEPOST_TEST_POSTGRES_BIN/initdb" ] && echo "$FENCEPOST_TEST_POSTGRES_BIN"
		return
	fi
	newest=$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
	[ -n "$newest" ] || newest=$(command -v initdb) || return 1
	dirname "$(readlink -f "$newest")"
}

# as_postgres runs a command as user postgres where we are root, since the server refuses root.
as_postgres() {
	if [ "$(id -u)" -eq 0 ]; then
		(cd / && runuser -u postgres -- "$@")
	else
		"$@"
	fi
}

free_port() {
	local port try
	for try in $(seq 1 100); do
		port=$((15000 + (RANDOM * 32768 + RANDOM) % 15000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return
		fi
	done
	die "no free port found"
}

init() {
	local bin=$1 dir=$2
	as_postgres "$bin/initdb" --no-sync -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 ||
		die "initdb failed: $(cat "$dir/initdb.log")"
	cat >"$dir/data/pg_hba.conf" <<-HBA
		local all         postgres              trust
		host  all         postgres 127.0.0.1/32 trust
		host  replication postgres 127.0.0.1/32 trust
		host  all         all      127.0.0.1/32 scram-sha-256
	HBA
}

configure() {
	local dir=$1 port=$2 socket=$1
	[ ${#socket} -le 80 ] || socket='' # the system's limit for a socket's path is 107 bytes
	cat >"$dir/data/fencepost.conf" <<-CONF
		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = '$socket'
		max_connections = 600
		fsync = on
		synchronous_commit = on
		include_if_exists = '$dir/extra.conf'
	CONF
	grep -q "^include 'fencepost.conf'" "$dir/data/postgresql.conf" ||
		echo "include 'fencepost.conf'" >>"$dir/data/postgresql.conf"
}

start() {
	local dir bin port try
	mkdir -p "$1"
	dir=$(cd "$1" && pwd)
	bin=$(bin_dir) || die "no initdb in /usr/lib/postgresql/*/bin or PATH: run $0 install"
	[ "$(id -u)" -ne 0 ] || chown postgres "$dir"
	[ -e "$dir/data/PG_VERSION" ] || init "$bin" "$dir"
	for try in 1 2 3 4 5; do
		[ -s "$dir/port" ] || free_port >"$dir/port"
		port=$(cat "$dir/port")
		configure "$dir" "$port"
		[ "$(id -u)" -ne 0 ] || chown -R postgres "$dir"
		if as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 60 start >"$dir/pg_ctl.log" 2>&1; then
			echo "postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
			return
		fi
		grep -q 'Address already in use' "$dir/server.log" || break
		rm -f "$dir/port"
	done
	die "the server did not start: $(tail -n 20 "$dir/server.log" 2>/dev/null || cat "$dir/pg_ctl.log")"
}

# end DIR SIGNAL: INT shuts down, QUIT is a crash.
end() {
	local pid waited=0
	[ -s "$1/data/postmaster.pid" ] || return 0
	pid=$(head -n 1 "$1/data/postmaster.pid")
	kill "-$2" "$pid" 2>/dev/null || return 0
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.05
		waited=$((waited + 1))
		[ "$waited" -ne 400 ] || kill -QUIT "$pid" 2>/dev/null || true
		[ "$waited" -lt 800 ] || die "process $pid does not end"
	done
}

install_server() {
	if bin_dir >/dev/null; then
		return
	fi
	command -v apt-get >/dev/null || die "no apt-get here: install PostgreSQL 14 or newer by hand"
	[ "$(id -u)" -eq 0 ] || die "installing needs root"
	mkdir -p /etc/postgresql-common
	# Without this Debian makes a cluster of its own and starts it.
	grep -qs '^create_main_cluster *= *false' /etc/postgresql-common/createcluster.conf ||
		echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql
	bin_dir >/dev/null || die "PostgreSQL was installed, but no initdb was found"
}

case "${1:-} $#" in
"start 2") start "$2" ;;
"stop 2") end "$2" INT ;;
"crash 2") end "$2" QUIT ;;
"install 1") install_server ;;
*) die "usage: $0 start DIR | stop DIR | crash DIR | install" ;;
esac

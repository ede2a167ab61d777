#!/usr/bin/env bash
# Builds, starts and stops a private etcd server for tests.
#
#   etcd.sh build        builds the server once, prints its path
#   etcd.sh start DIR    starts one on free loopback ports, prints its URL;
#                        a DIR that was started before keeps ports and data
#   etcd.sh stop DIR     stops it and waits until it has ended
#
# FENCEPOST_ETCD_QUOTA sets the size of the database in bytes.
# FENCEPOST_ETCD_NAME and FENCEPOST_ETCD_CLUSTER make the server one of several,
# in the words of --name and --initial-cluster. DIR/port then says where it is:
# clients come to that port, and peers to the next.
# FENCEPOST_ETCD_TLS names a folder with server.pem, server-key.pem and ca.pem:
# clients then come by TLS, with a certificate of that CA.
# FENCEPOST_CACHE sets where the server is kept.
set -euo pipefail

version=3.7.3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source_dir=$root/integration/etcdserver

fail() {
	echo "etcd.sh: $*" >&2
	exit 1
}

build() {
	local cache=${FENCEPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fencepost}
	local sum
	sum=$(cat "$source_dir/go.sum" "$source_dir/main.go" | cksum | cut -d' ' -f1)
	local binary=$cache/etcd-$version-$sum
	if [[ ! -x $binary ]]; then
		mkdir -p "$cache"
		(cd "$source_dir" && GOWORK=off go build -trimpath -o "$binary.$$" .) >&2
		mv "$binary.$$" "$binary"
	fi
	echo "$binary"
}

# running PID DIR: the process lives and is the server of DIR.
running() {
	local state
	state=$(ps -o stat= -p "$1" 2>/dev/null) || return 1
	[[ $state != Z* ]] && ps -o args= -ww -p "$1" | grep -qF -- "--data-dir $2/data"
}

# healthy PORT: the server, at its port for metrics, has a leader and answers, be its database full or not.
healthy() {
	local answer
	answer=$(
		exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
		printf 'GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
		timeout 2 cat <&3
	) || return 1
	[[ $answer == *'"health":"true"'* || $answer == *ALARM* ]]
}

# scheme prints what the clients' URL begins with, after http or etcd.
scheme() {
	[[ -z ${FENCEPOST_ETCD_TLS-} ]] || echo s
}

# launch BINARY DIR PORT: succeeds when the server is healthy. It uses PORT for
# clients and the two above it for peers and metrics.
launch() {
	local binary=$1 dir=$2 client peer=http://127.0.0.1:$(($3 + 1)) tls=()
	client=http$(scheme)://127.0.0.1:$3
	[[ -z ${FENCEPOST_ETCD_TLS-} ]] || tls=(--client-cert-auth --trusted-ca-file "$FENCEPOST_ETCD_TLS/ca.pem"
		--cert-file "$FENCEPOST_ETCD_TLS/server.pem" --key-file "$FENCEPOST_ETCD_TLS/server-key.pem")
	setsid "$binary" --name "${FENCEPOST_ETCD_NAME:-test}" --data-dir "$dir/data" --log-level error \
		--listen-client-urls "$client" --advertise-client-urls "$client" \
		--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
		--listen-metrics-urls "http://127.0.0.1:$(($3 + 2))" "${tls[@]}" \
		--initial-cluster "${FENCEPOST_ETCD_CLUSTER:-test=$peer}" --quota-backend-bytes "${FENCEPOST_ETCD_QUOTA:-0}" \
		</dev/null >>"$dir/log" 2>&1 &
	local pid=$!
	echo "$pid" >"$dir/pid"
	local end=$((SECONDS + 30))
	until healthy $(($3 + 2)); do
		kill -0 "$pid" 2>/dev/null || return 1
		((SECONDS < end)) || { kill -KILL "$pid"; return 1; }
		sleep 0.02
	done
	kill -0 "$pid" 2>/dev/null
}

start() {
	local dir=$1 binary
	binary=$(build)
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd)
	if [[ -f $dir/pid ]] && running "$(cat "$dir/pid")" "$dir"; then
		fail "$dir has a server already: etcd.sh stop $dir"
	fi
	local port
	for _ in 1 2 3 4 5 6 7 8; do
		port=$((20000 + RANDOM % 4000 * 3))
		[[ ! -f $dir/port ]] || port=$(cat "$dir/port")
		if launch "$binary" "$dir" "$port"; then
			echo "$port" >"$dir/port"
			echo "etcd$(scheme)://127.0.0.1:$port"
			return
		fi
		[[ -f $dir/port ]] || rm -rf "$dir/data"
	done
	tail -n 20 "$dir/log" >&2
	fail "the server does not start; its log is $dir/log"
}

stop() {
	local dir pid
	dir=$(cd "$1" && pwd)
	[[ -f $dir/pid ]] || return 0
	pid=$(cat "$dir/pid")
	if running "$pid" "$dir"; then
		kill -TERM "$pid"
		kill -CONT "$pid" 2>/dev/null || true
		local end=$((SECONDS + 10))
		while running "$pid" "$dir"; do
			((SECONDS < end)) || kill -KILL "$pid" 2>/dev/null || true
			sleep 0.02
		done
	fi
	rm -f "$dir/pid"
}

case ${1-} in
build)
	[[ $# -eq 1 ]] || fail "usage: etcd.sh build"
	build
	;;
start)
	[[ $# -eq 2 ]] || fail "usage: etcd.sh start DIR"
	start "$2"
	;;
stop)
	[[ $# -eq 2 ]] || fail "usage: etcd.sh stop DIR"
	stop "$2"
	;;
*) fail "usage: etcd.sh build | start DIR | stop DIR" ;;
esac

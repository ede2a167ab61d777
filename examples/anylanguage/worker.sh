#!/bin/sh
# What worker.py does, in shell, by psql.
set -eu
trap 'exit 0' TERM
while :; do
	for table in plain guarded; do
		psql -X -q -v ON_ERROR_STOP=1 "$FENCEPOST_GUARDED_URL" -c "
			begin;
			update $table set items_left = items_left - 1, seller = '$FENCEPOST_TOKEN';
			insert into ${table}_sold values ('$FENCEPOST_TOKEN');
			commit;"
		echo "$FENCEPOST_TOKEN sold one of $table"
	done
	sleep 0.05
done

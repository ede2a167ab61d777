CREATE TABLE board (
	key     TEXT PRIMARY KEY,
	value   BLOB    NOT NULL,
	version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE claim (
	revision INTEGER PRIMARY KEY,
	claim    TEXT    NOT NULL
) STRICT;
CREATE TABLE log (
	revision   INTEGER PRIMARY KEY,
	commit_id  BLOB    NOT NULL,
	generation INTEGER NOT NULL,
	epoch      INTEGER NOT NULL,
	payload    BLOB    NOT NULL
) STRICT;
CREATE TABLE part (
	id   BLOB    NOT NULL,
	n    INTEGER NOT NULL CHECK (n >= 0),
	part BLOB    NOT NULL,
	PRIMARY KEY (id, n)
) STRICT;
CREATE TABLE snapshot (
	one      INTEGER PRIMARY KEY CHECK (one = 1),
	revision INTEGER NOT NULL,
	id       BLOB    NOT NULL,
	snapshot TEXT    NOT NULL,
	trimmed  INTEGER NOT NULL
) STRICT;

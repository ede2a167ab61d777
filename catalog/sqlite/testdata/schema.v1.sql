CREATE TABLE board (
	key     TEXT PRIMARY KEY,
	value   BLOB    NOT NULL,
	version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE claim (
	revision INTEGER PRIMARY KEY,
	claim    TEXT    NOT NULL
) STRICT;
CREATE TABLE head (
	one       INTEGER PRIMARY KEY CHECK (one = 1),
	revision  INTEGER NOT NULL,
	commit_id BLOB    NOT NULL,
	claim     TEXT    NOT NULL
) STRICT;
CREATE TABLE log (
	revision   INTEGER PRIMARY KEY,
	commit_id  BLOB    NOT NULL,
	generation INTEGER NOT NULL,
	epoch      INTEGER NOT NULL,
	payload    BLOB    NOT NULL
) STRICT;

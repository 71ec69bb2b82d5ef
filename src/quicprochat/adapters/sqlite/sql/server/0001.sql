-- Server schema 1: who is known at a home server. Beside the tables of a store, with a version of its own.

CREATE TABLE server_meta (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    version       INTEGER NOT NULL,
    readable_from INTEGER NOT NULL   -- oldest version of a program that may still use this file
) STRICT;

-- Wall times of 0 are unknown. The checksum is over key and name.
CREATE TABLE user (
    key        BLOB PRIMARY KEY,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,     -- the same moment as last_seen, by the life clock
    name       TEXT UNIQUE,          -- NULL: none
    look       TEXT UNIQUE,          -- what the name is for the eye: two that look alike are one
    checksum   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX user_nameless ON user (seen_at) WHERE name IS NULL;

CREATE TABLE invite (
    hash       BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL      -- by the life clock
) STRICT, WITHOUT ROWID;

-- Server schema 2: what is for users of other domains' servers, and what those servers said.
-- A program of schema 1 may use the file: it leaves these tables alone, and rows without an envelope are dropped later.

-- One row for each envelope in held that another domain's server is to get. Times are of the life clock. The checksum
-- is over everything that does not change: all but due_at, tries, verdict and reason.
CREATE TABLE outbox (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
    id          BLOB NOT NULL UNIQUE,
    origin      TEXT NOT NULL,     -- our own domain when it came
    destination TEXT NOT NULL,
    user        BLOB NOT NULL,     -- who brought it; its author or not
    kind        INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    due_at      INTEGER,           -- NULL: set aside, the destination refused it for good
    tries       INTEGER NOT NULL,
    verdict     INTEGER,           -- the destination's last answer; NULL: none yet
    reason      INTEGER NOT NULL,
    checksum    BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (destination, due_at, n);
CREATE INDEX outbox_expiry ON outbox (expires_at);

-- From which domain an author's mail came: a receipt for it finds its way back by this.
CREATE TABLE correspondent (
    author     BLOB PRIMARY KEY,
    domain     TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    checksum   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX correspondent_expiry ON correspondent (expires_at);

-- Answers of other domains that their authors' devices are still to be told.
CREATE TABLE report (
    n       INTEGER PRIMARY KEY AUTOINCREMENT,
    author  BLOB NOT NULL,
    id      BLOB NOT NULL,
    domain  TEXT NOT NULL,
    verdict INTEGER NOT NULL,
    reason  INTEGER NOT NULL,
    made_at INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT;
CREATE INDEX report_author ON report (author, n);
CREATE INDEX report_age ON report (made_at);

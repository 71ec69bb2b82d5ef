-- Schema 1. Instants are milliseconds of the home's life clock, wall times milliseconds since 1970; both are signed.
-- "checksum" is a hash over what never changes in its row (and is not covered by the envelope's own id).

CREATE TABLE meta (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    version       INTEGER NOT NULL,
    readable_from INTEGER NOT NULL   -- oldest version of a program that may still use this file
) STRICT;

CREATE TABLE value (
    key      TEXT PRIMARY KEY,
    checksum BLOB NOT NULL,
    data     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    total INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Dedup. A row of 40 bytes for each envelope ever seen: the biggest table of an old node.
CREATE TABLE seen (
    id        BLOB PRIMARY KEY,
    fate      INTEGER NOT NULL,
    forget_at INTEGER                -- NULL: never
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_forget ON seen (forget_at) WHERE forget_at IS NOT NULL;

-- Kind, author and destination stand in the envelope; the destination is repeated for its index.
CREATE TABLE held (
    serial     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB NOT NULL UNIQUE,
    dst        BLOB NOT NULL,
    via        BLOB NOT NULL,        -- empty: our own
    stored_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    checksum   BLOB NOT NULL,
    wire       BLOB NOT NULL
) STRICT;
CREATE INDEX held_dst ON held (dst);
CREATE INDEX held_expiry ON held (expires_at);

CREATE TABLE sent (
    n           INTEGER PRIMARY KEY,
    uid         BLOB NOT NULL UNIQUE,
    envelope_id BLOB NOT NULL UNIQUE, -- the current sealing; earlier ones are in former_envelope
    state       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    protection  TEXT NOT NULL,
    seals       INTEGER NOT NULL,
    peer        BLOB NOT NULL,
    created     INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    ttl_s       INTEGER NOT NULL,
    require_fs  INTEGER NOT NULL,
    checksum    BLOB NOT NULL,
    text        TEXT NOT NULL
) STRICT;
CREATE INDEX sent_open ON sent (peer, protection) WHERE state IN ('queued', 'relayed');

CREATE TABLE former_envelope (
    id   BLOB PRIMARY KEY,
    sent INTEGER NOT NULL REFERENCES sent,
    nth  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX former_envelope_sent ON former_envelope (sent, nth);

CREATE TABLE trace (
    sent    INTEGER NOT NULL REFERENCES sent,
    nth     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    state   TEXT NOT NULL,
    carrier TEXT NOT NULL,
    PRIMARY KEY (sent, nth)
) STRICT, WITHOUT ROWID;

CREATE TABLE line (
    cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       INTEGER NOT NULL,     -- 1 message, 2 receipt
    read       INTEGER NOT NULL,
    request    INTEGER NOT NULL,
    peer       BLOB NOT NULL,
    uid        BLOB NOT NULL,
    at         INTEGER NOT NULL,
    hops       INTEGER NOT NULL,
    protection TEXT NOT NULL,
    domain     TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    checksum   BLOB NOT NULL,
    text       TEXT NOT NULL
) STRICT;
CREATE INDEX line_unread ON line (cursor, kind) WHERE read = 0;
CREATE INDEX line_request ON line (peer) WHERE request = 1;

-- Apart from the lines, so that a message may be deleted and still never arrives twice.
CREATE TABLE delivered (
    author BLOB NOT NULL,
    uid    BLOB NOT NULL,
    cursor INTEGER NOT NULL,
    PRIMARY KEY (author, uid)
) STRICT, WITHOUT ROWID;

-- epoch, seq and age_ms are unsigned on the wire and stand here as signed numbers of the same 64 bits.
CREATE TABLE record (
    key       BLOB PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    age_ms    INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    checksum  BLOB NOT NULL,
    data      BLOB NOT NULL
) STRICT;
CREATE INDEX record_newest ON record (stored_at DESC, key);

CREATE TABLE sighting (
    key     BLOB PRIMARY KEY,
    wall    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    address TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sighting_newest ON sighting (at DESC, key);

CREATE TABLE prekey (
    id       BLOB PRIMARY KEY,
    made_at  INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    secret   BLOB NOT NULL
) STRICT;

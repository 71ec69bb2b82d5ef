-- Schema 5: where peers live. An older program leaves it alone and finds everything else as it was.
CREATE TABLE home (
    key      BLOB PRIMARY KEY,
    domain   TEXT NOT NULL,
    source   INTEGER NOT NULL,      -- 1 a message of the peer's, 2 its record, 3 our own person
    epoch    INTEGER NOT NULL,      -- of the newest record that was known, like "record" folded into 64 signed bits
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT;
CREATE INDEX home_newest ON home (at DESC, key);

-- Schema 7: the history of channels. An older program would take a line of kind 4, a post of our own, for damage.

-- Of a post: its envelope's id, its author's number for it (8 bytes), its parents' ids; the checksum covers it where it is not empty.
ALTER TABLE line ADD COLUMN place BLOB NOT NULL DEFAULT x'';
CREATE INDEX line_post ON line (channel, cursor) WHERE kind IN (3, 4);

-- Which numbers of an author's posts were seen in a channel.
CREATE TABLE heard (
    n        INTEGER PRIMARY KEY,
    channel  BLOB NOT NULL,
    author   BLOB NOT NULL,
    at       INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    numbers  BLOB NOT NULL,          -- lowest and highest, then of each gap first, last and when it was noticed; 8 bytes each
    UNIQUE (channel, author)
) STRICT;

-- Schema 2: channels and their posts. Posts lie in "held" like every envelope; the rest of a channel lies here.

-- A row stays when its channel is left (then "left" is 1 and the secret empty), for the topic of the lines it has.
CREATE TABLE channel (
    id       BLOB PRIMARY KEY,
    kind     TEXT NOT NULL,          -- open, private
    epoch    INTEGER NOT NULL,
    topic    TEXT NOT NULL,
    left     INTEGER NOT NULL,
    heads    BLOB NOT NULL,          -- ids of envelopes, 32 bytes each
    checksum BLOB NOT NULL,
    secret   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A line of kind 3 is a post; its checksum covers the channel too.
ALTER TABLE line ADD COLUMN channel BLOB NOT NULL DEFAULT x'';
CREATE INDEX line_unread_post ON line (channel) WHERE read = 0 AND kind = 3;

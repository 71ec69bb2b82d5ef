-- Schema 8: whose a channel is, its earlier secrets, whom the owner lists, what we said, and who is in it. The checksum covers the
-- new columns where one of them is not what it is here.
ALTER TABLE channel ADD COLUMN owner   BLOB NOT NULL DEFAULT x'';
ALTER TABLE channel ADD COLUMN salt    BLOB NOT NULL DEFAULT x'';
ALTER TABLE channel ADD COLUMN earlier BLOB NOT NULL DEFAULT x'';    -- epoch 4, until 8, secret 32 each
ALTER TABLE channel ADD COLUMN charter INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN posters BLOB NOT NULL DEFAULT x'';    -- keys, 32 bytes each
ALTER TABLE channel ADD COLUMN said    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel ADD COLUMN muted   INTEGER NOT NULL DEFAULT 0;
CREATE TABLE channel_member (
    n        INTEGER PRIMARY KEY,
    channel  BLOB NOT NULL,
    peer     BLOB NOT NULL,
    present  INTEGER NOT NULL,
    said     INTEGER NOT NULL,
    removed  INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    letter   BLOB NOT NULL,          -- the uid of the message that carries the secret of that epoch, or empty
    checksum BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX channel_member_of ON channel_member (channel, peer);
-- What a message of ours carries: 1 a text, 2 the secret of a channel. The checksum covers it where it is not 1.
ALTER TABLE sent ADD COLUMN type INTEGER NOT NULL DEFAULT 1;

-- Schema 9: order in the house. A post that its author called an emergency, of an author whom our owner trusts for it; the checksum of
-- the line covers it where it is not 0.
ALTER TABLE line ADD COLUMN emergency INTEGER NOT NULL DEFAULT 0;

-- Which neighbour an id came over first, as the first 8 bytes of its key (0: none): when too many are remembered, those go
-- that came over the neighbour of whom there are most.
ALTER TABLE seen ADD COLUMN part INTEGER NOT NULL DEFAULT 0;
DROP INDEX seen_passed;
CREATE INDEX seen_passed ON seen (part, forget_at, id, fate) WHERE fate IN (3, 4);

-- Since when an author's posts have been coming; "via" is the neighbour that brought the first.
CREATE TABLE author (
    key      BLOB PRIMARY KEY,
    since    INTEGER NOT NULL,
    heard_at INTEGER NOT NULL,
    via      BLOB NOT NULL,
    checksum BLOB NOT NULL
) STRICT;
CREATE INDEX author_via ON author (via, heard_at);

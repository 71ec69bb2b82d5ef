-- Server schema 3: which channels this server's users follow, and the users of other domains' servers.
-- A program of schema 2 may use the file: it leaves these tables alone, and posts in held expire there like mail.

CREATE TABLE follow (
    channel  BLOB NOT NULL,
    user     BLOB NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (channel, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX follow_user ON follow (user);

-- after: the serial up to which that domain's server has answered for our posts of the channel. It is not under the
-- checksum: with a wrong one ids are offered again, or the rest of a window is left to other ways.
CREATE TABLE interest (
    domain   TEXT NOT NULL,
    channel  BLOB NOT NULL,
    after    INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (domain, channel)
) STRICT, WITHOUT ROWID;

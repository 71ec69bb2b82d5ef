-- Our own envelopes are looked through in order, for servers that take them to others.
CREATE INDEX held_own ON held (serial) WHERE via = x'';

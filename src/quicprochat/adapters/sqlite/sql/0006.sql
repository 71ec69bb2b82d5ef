-- Schema 6. What is carried for others gives way fairly: the oldest of one author over one link is found by this. Receipts (kind
-- 2) and posts (3) are bounded elsewhere.
CREATE INDEX held_crowd ON held (via, substr(wire, 5, 32), serial)
    WHERE via != x'' AND substr(wire, 3, 1) NOT IN (x'02', x'03');
-- Ids of what was passed on (fate 4) or is gone (3) are forgotten in the order of their release.
CREATE INDEX seen_passed ON seen (forget_at, id) WHERE fate IN (3, 4);

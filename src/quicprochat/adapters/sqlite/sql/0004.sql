-- When a message or post was written, by the age of its envelope (0: not known). The checksum covers it where it is not 0.
ALTER TABLE line ADD COLUMN sent_at INTEGER NOT NULL DEFAULT 0;

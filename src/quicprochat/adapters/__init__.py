"""One library each, translated into the core's own types; foreign objects stop here."""

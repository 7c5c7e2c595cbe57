"""The way out: what is derived from the log and can be rebuilt from it."""

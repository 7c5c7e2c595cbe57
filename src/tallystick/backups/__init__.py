"""Backups: a copy of ledgers that are in use, and a restore that verifies before anything has its name."""

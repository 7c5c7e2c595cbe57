"""The way in: accept, seal, commit."""

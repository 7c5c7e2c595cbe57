"""Evidence bundles: made from a ledger, and verified without it."""

"""What others can hold against the ledger: verification, proofs, static tiles."""

"""Controls of frameworks, and what of the ledger is evidence for them."""

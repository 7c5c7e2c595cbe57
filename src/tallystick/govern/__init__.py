"""What is decided about a ledger, as events of its own: retention, legal holds, prunes."""

"""What verifying a ledger consists of: scans of ranges, and what holds their results together."""

"""What calls the service of another process, with the verbs of a ledger. It shares no code with what serves."""

"""What things are: pure values and the bytes they have; no I/O, clock, randomness or logging."""

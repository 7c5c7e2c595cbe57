"""Golden vectors: what every reader of SPEC must accept and refuse, and what makes them."""

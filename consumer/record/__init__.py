"""One record: from its bytes to its outcome, and the signed records made of that. No library."""

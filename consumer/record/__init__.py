"""One record: from its bytes to its outcome and the signed records made of it. No library."""

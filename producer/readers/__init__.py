"""Results and dead letters, read and verified."""

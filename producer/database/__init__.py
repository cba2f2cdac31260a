"""Results in PostgreSQL with pgvector, and the nearest pictures in it. Needs the extra `index`."""

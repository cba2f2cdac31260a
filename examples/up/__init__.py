"""`make up`: everything on one machine, and it stays."""

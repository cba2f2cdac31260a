"""The command line of the ingestion side."""

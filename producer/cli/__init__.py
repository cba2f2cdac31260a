"""The ingestion side's subcommands."""

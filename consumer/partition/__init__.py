"""One partition: its records in flight, its offsets, when to commit. No other room has offsets."""

"""One partition: its records in work, its offsets, when to commit. The only room with offsets."""

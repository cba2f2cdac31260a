"""What both sides share about Kafka, settings and files: above `schemas`, below the two."""

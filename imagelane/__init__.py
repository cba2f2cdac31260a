"""Kafka, settings and files for both sides: above `schemas`, below the two."""

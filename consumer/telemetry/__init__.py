"""Metrics, traces, tallies, and the port that serves them."""

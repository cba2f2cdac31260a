"""What a consumer tells of itself: metrics, traces, tallies, and the port that serves them."""

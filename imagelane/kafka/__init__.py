"""How a Kafka client is made, and what its answers mean."""

"""The arguments of Kafka clients, and the meaning of their answers."""

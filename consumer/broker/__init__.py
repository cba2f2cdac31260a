"""Kafka as the consumer uses it: the group, transactions, cluster facts, history."""

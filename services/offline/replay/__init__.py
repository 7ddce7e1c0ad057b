"""Transactions into Kafka at a pace: as fast as they go, at a rate, or as fast as their event times say."""

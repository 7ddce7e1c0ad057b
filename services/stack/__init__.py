"""The embedded stack: a real Kafka and a real Redis, started as ordinary processes from what pip can install."""

"""The monitor: what Kafka and Redis say of themselves, for Prometheus, whether a scorer runs or not."""

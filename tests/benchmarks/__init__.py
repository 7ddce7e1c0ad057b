"""Measurements that anyone can run: parity of features, throughput and latency."""

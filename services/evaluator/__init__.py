"""The evaluator: what becomes of decisions as labels come, and how far their features drift, for Prometheus."""

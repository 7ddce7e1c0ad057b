"""The lake: topics as Delta Lake tables; the only place that imports deltalake."""

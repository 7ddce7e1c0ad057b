"""Avro: fastavro for one record and off the hot path, columnar kernels for batches."""

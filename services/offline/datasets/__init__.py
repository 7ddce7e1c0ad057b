"""Transactions in files: Proact's own Parquet, and anybody's Parquet or CSV through a mapping that is data."""

"""Terminals: what is remembered of one, its windows and its features."""

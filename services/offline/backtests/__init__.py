"""A policy on what was really decided and became of it: in money."""

"""Seeded card traffic: people with habits, places to pay at, and the frauds committed on them."""

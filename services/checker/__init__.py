"""The checker: proves, record by record, what the workers did; it shares no code with them."""

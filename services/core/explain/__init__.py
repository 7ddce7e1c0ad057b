"""What people read of a decision: reasons, what would have passed, declines."""

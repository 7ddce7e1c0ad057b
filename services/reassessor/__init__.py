"""The reassessor: what would have been decided had everything been at hand."""

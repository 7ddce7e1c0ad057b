"""The worker: the loop, and the steps of a batch."""

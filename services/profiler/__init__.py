"""The profiler: folds terminal events into profiles of terminals."""

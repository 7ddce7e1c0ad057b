"""Pure: columns in, columns out. Imports the standard library, numpy and numba, nothing else."""

"""The router: puts fraud labels into the log of their terminals."""

"""Breaking everything under load, on purpose, from a seed; what becomes of it is the checker's to say."""
